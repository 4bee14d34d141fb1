"""Files that become much larger when they are decoded: the limit counts what the rows become."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest

from finetune_api.limits import DataLimits
from finetune_data.read.examples import Row
from finetune_data.read.findings import Finding
from finetune_data.read.formats import sheets
from finetune_data.read.formats.decoded_size import decoded_size
from tests.data.builders import read

LIMITS = DataLimits(max_file_bytes=3_000_000, max_line_bytes=100_000)
LONG = "word " * 4_000  # 20,000 bytes


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    import pyarrow
    from pyarrow import parquet as library

    sink = io.BytesIO()
    library.write_table(pyarrow.table(columns), sink, compression="zstd", **options)
    return sink.getvalue()


def fatal(data: bytes, name: str = "train.parquet", limits: DataLimits = LIMITS) -> Finding:
    *_, last = read(data, name, limits=limits)
    assert isinstance(last, Finding)
    assert last.fatal
    return last


MESSAGES = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": ["a"] * 1000, "completion": [LONG] * 1000},
        {"prompt": ["a"] * 1000, "completion": [LONG.encode()] * 1000},
        {"messages": [MESSAGES] * 1000},
    ],
    ids=["texts", "bytes", "messages"],
)
@pytest.mark.parametrize("encoding", ["dictionary", "DELTA_BYTE_ARRAY", "PLAIN"])
def test_texts_that_repeat_count_each_time(columns: dict[str, Any], encoding: str) -> None:
    if encoding == "dictionary":
        data = parquet(columns)
        assert len(data) < 20_000
    else:
        data = parquet(columns, use_dictionary=False, column_encoding=encoding)
    assert "more than" in fatal(data).message


def test_a_row_whose_list_repeats_a_text_is_too_long_and_others_are_read() -> None:
    many = [{"role": "user", "content": LONG}] * 100
    rows = [[*many, {"role": "assistant", "content": "b"}], [*MESSAGES]]
    first, second = read(parquet({"messages": rows}), "train.parquet", limits=LIMITS)
    assert isinstance(first, Finding)
    assert (first.code, first.line, first.unit) == ("line-too-long", 1, "row")
    assert not isinstance(second, Finding)


def test_the_same_rows_in_a_dictionary_and_without_one_are_the_same() -> None:
    columns = {"prompt": ["a", "", "é"] * 700, "completion": ["b", "c", "d"] * 700}
    found = [read(parquet(columns, use_dictionary=uses), "train.parquet") for uses in (True, False)]
    assert found[0] == found[1]
    assert [type(it) for it in found[0]] == [Row] * 2100


def test_too_many_values_and_columns_are_refused_before_they_are_read() -> None:
    numbers = {"prompt": ["a"], "completion": ["b"], "x": [[0] * 1_000_000]}
    assert "1,000,000 values in a column" in fatal(parquet(numbers)).message
    wide = {f"c{number}": ["a"] for number in range(1001)}
    assert "1,001 columns" in fatal(parquet(wide)).message


def test_the_size_of_slices_and_nulls_is_that_of_their_values() -> None:
    import pyarrow

    texts = pyarrow.array(["abc", None, "de"]).dictionary_encode()
    assert decoded_size(texts, 0) == 5
    assert decoded_size(texts[2:], 0) == 2
    lists = pyarrow.array([["abc"], None, ["de", "f"]])
    assert decoded_size(lists[2:], 0) == 3 + 2 * 4
    maps = pyarrow.array([[("k", "abc")], [("l", "d")]], pyarrow.map_("string", "string"))
    assert decoded_size(maps[1:], 0) == 2 + 2 * 4


def test_memory_that_a_library_cannot_get_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet as library

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(library, "ParquetFile", fail)
    assert "needs too much memory" in fatal(parquet({"prompt": ["a"], "completion": ["b"]})).message


def workbook(texts: bytes) -> bytes:
    """A workbook with this table of texts, and no usual content."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/sharedStrings.xml", texts)
    return sink.getvalue()


def test_the_table_of_texts_of_a_workbook_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    large = workbook(b"<sst>" + b" " * LIMITS.max_file_bytes)
    assert "bytes of texts" in fatal(large, "train.xlsx").message
    monkeypatch.setattr(sheets, "TAGS", 1000)
    many = workbook(b"<sst>" + b"<si><t/></si>" * 1000)
    assert "millions of texts" in fatal(many, "train.xlsx").message
