"""Every format gives the same rows; hostile and broken files give a sentence."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.limits import DataLimits
from finetune_data.errors import DataError
from finetune_data.read.examples import Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.read.reader import Reader
from finetune_data.read.sources import find_sources
from finetune_data.rewrite.rewriting import to_line
from tests.data.builders import compress, read, reader

PAIRS = [
    ("NA", " None"),
    ("", "null"),
    ("007", "x\ny"),
    (" lead", "ünï 中 🙂"),
    ('q"q', "a,b;c\td"),
]


def zstd(data: bytes) -> bytes:
    from zstandard import ZstdCompressor

    return ZstdCompressor().compress(data)


def delimited(pairs: list[tuple[str, str]], delimiter: str = ",", end: str = "\r\n") -> bytes:
    file = io.StringIO()
    # (Python's writer leaves a carriage return without quotes when lines end with a line feed.)
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(("prompt", "completion"))
    writer.writerows(pairs)
    return file.getvalue().encode()


def objects(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]


def workbook(rows: list[tuple[Any, ...]], title: str = "Data") -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = title
    for row in rows:
        sheet.append(row)
    book.create_sheet("Notes").append(("nothing",))
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def parquet(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet as files

    file = io.BytesIO()
    files.write_table(pyarrow.table(columns), file)
    return file.getvalue()


FILES = {
    "a.csv": delimited(PAIRS),
    "bom.csv": b"\xef\xbb\xbf" + delimited(PAIRS),
    "semicolons.csv": delimited(PAIRS, ";"),
    "a.tsv": delimited(PAIRS, "\t", "\n"),
    "a.csv.gz": compress(delimited(PAIRS)),
    "a.csv.zst": zstd(delimited(PAIRS)),
    "array.json": json.dumps(objects(PAIRS)).encode(),
    "indented.json": json.dumps(objects(PAIRS), indent=2).encode(),
    "indented.jsonl": "\n".join(json.dumps(one, indent=1) for one in objects(PAIRS)).encode(),
    "inside.json": json.dumps({"version": 1, "data": objects(PAIRS)}).encode(),
    "a.jsonl": b"".join(to_line(Row(1, *pair)) for pair in PAIRS),
    "a.jsonl.zst": zstd(b"".join(to_line(Row(1, *pair)) for pair in PAIRS)),
    "no-ending": b"".join(to_line(Row(1, *pair)) for pair in PAIRS),
    "a.xlsx": workbook([("prompt", "completion"), *PAIRS]),
    "a.parquet": parquet({"prompt": [p for p, _ in PAIRS], "completion": [c for _, c in PAIRS]}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows_and_text_stays_text(name: str) -> None:
    found = read(FILES[name], name)
    assert [(item.prompt, item.completion) for item in found if isinstance(item, Row)] == PAIRS
    assert len(found) == len(PAIRS)


def test_a_text_file_is_completions_without_prompts() -> None:
    assert read(b"one\r\ntwo\n\n", "a.txt") == [Row(1, "", "one"), Row(2, "", "two")]


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.xlsx", "a.parquet"])
def test_a_file_of_one_row_is_fine(name: str) -> None:
    pair = [("p", "c")]
    data = {
        "a.csv": delimited(pair),
        "a.json": json.dumps(objects(pair)[0]).encode(),
        "a.jsonl": to_line(Row(1, "p", "c")),
        "a.xlsx": workbook([("prompt", "completion"), *pair]),
        "a.parquet": parquet({"prompt": ["p"], "completion": ["c"]}),
    }[name]
    assert [
        (item.prompt, item.completion) for item in read(data, name) if isinstance(item, Row)
    ] == pair


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.txt", "a.tsv", "a.xlsx"])
def test_an_empty_file_is_no_error_for_the_reader(name: str) -> None:
    assert read(b"", name) == []


WRONG = [
    ("a.csv", b"prompt,completion\na\nb,c\n", ["line 2: 1 cell, but the header has 2 columns"], 1),
    ("a.csv", b'prompt,completion\na,"b"x\nc,d\n', ["line 2: a quote inside a quoted cell"], 1),
    ("a.csv", b'prompt,completion\na,b\n"c,d\n', ["line 3: a quoted cell has no closing quote"], 1),
    ("a.csv", b"prompt,prompt\na,b\n", ['line 1: the header has the column "prompt" twice'], 0),
    ("a.csv", b"prompt,completion\n\xff,b\nc,d\n", ['line 2: "prompt" is not valid UTF-8'], 1),
    ("a.csv", b"prompt,completion\na\0,b\n", ['line 2: "prompt" holds a NUL'], 0),
    ("a.csv", b"prompt,completion\na,\n", ['line 2: "completion" is empty'], 0),
    (
        "a.csv",
        b"question,answer\na,b\n",
        ["`finetune prepare-data FILE --prompt-column question --completion-column answer`"],
        0,
    ),
    (
        "a.csv",
        b"prompt,the answer\na,b\n",
        ['no column is named "completion", there are only "prompt", "the answer". To convert'],
        0,
    ),
    (
        "a.json",
        b'[{"q": "a", "a": "b"}]',
        ['missing key "prompt"; the line has "q", "a". To convert the file, run'],
        0,
    ),
    ("a.json", b'[{"prompt":"a","completion":"b"},]', ["line 1, column 34: not valid JSON"], 1),
    ("a.json", b'[{"prompt":"a","completion":"b"}', ["expected ',' or the end of the array"], 1),
    ("a.json", b'[{"prompt":"a",\n"completion":null}]', ['"completion" is empty'], 0),
    ("a.json", b'[1,\n"x"]', ["line 1: a number, expected", 'line 2: a string "x", expected'], 0),
    ("a.json", b'[{"a":1,"a":2}]', ['the key "a" occurs twice'], 0),
    ("a.json", b"[" * 200 + b"]" * 200, ["nested deeper than 64 levels"], 0),
    ("a.json", b"[" + b"[" * 100_000, ["nested deeper than 64 levels"], 0),
    ("a.json", b'{"prompt":"\\ud800","completion":"b"}\n', ["half of a surrogate pair"], 0),
    ("a.json", b'[{"prompt":"\xff","completion":"b"}]', ["not valid UTF-8: byte 0xff"], 0),
    ("a.xlsx", b"PK\x03\x04 nothing", ["the workbook cannot be read"], 0),
    ("a.parquet", b"PAR1 nothing PAR1", ["the Parquet file cannot be read"], 0),
    ("picture.csv", b"\xff\xd8\xff\xe0\x10JFIF", ["this is a JPEG picture"], 0),
    ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", ["an old Excel or Word file"], 0),
    ("a.csv.gz", compress(b"prompt,completion\na,b\n")[:-9], ["broken or cut off"], None),
    ("a.csv.zst", zstd(b"prompt,completion\na,b\n")[:-2], ["broken or cut off"], None),
    ("a.jsonl.gz", compress(compress(b"{}")), ["a gzip file inside a gzip file"], 0),
    ("what.bin", b"hello", ["a file of an unknown format"], 0),
]


@pytest.mark.parametrize(("name", "data", "expected", "rows"), WRONG)
def test_an_error_is_a_sentence(
    name: str, data: bytes, expected: list[str], rows: int | None
) -> None:
    found = read(data, name)
    texts = [str(item) for item in found if isinstance(item, Finding)]
    assert len(texts) == len(expected), texts
    for text, words in zip(texts, expected, strict=True):
        assert words in text
        assert text.isprintable()
    if rows is not None:
        assert sum(isinstance(item, Row) for item in found) == rows


def test_an_unclosed_quote_does_not_fill_the_memory() -> None:
    limits = DataLimits(max_line_bytes=1000, max_file_bytes=10_000_000)
    data = b'prompt,completion\na,"' + b"line\n" * 100_000
    found = read(data, "a.csv", limits=limits)
    assert isinstance(found[0], Finding)
    assert "is a quote missing?" in found[0].message


@pytest.mark.parametrize("pack", [compress, zstd])
def test_a_bomb_costs_what_the_limit_allows(pack: Any) -> None:
    bomb = pack(b"prompt,completion\n" + b"a,b\n" * 10_000_000)
    last = read(bomb, "a.csv", limits=DataLimits(max_file_bytes=1_000_000))[-1]
    assert isinstance(last, Finding)
    assert last.fatal
    assert "1,000,000 bytes, decompressed" in last.message


def test_a_workbook_bomb_is_detected_by_its_directory() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * 50_000_000)
    [found] = read(file.getvalue(), "a.xlsx", limits=DataLimits(max_file_bytes=1_000_000))
    assert "50,000,000 bytes after decompression" in str(found)


def test_typed_cells_become_the_text_that_people_see() -> None:
    from datetime import date, datetime

    row = (7, 1.5, True, date(2026, 1, 2), datetime(2026, 1, 2, 3, 4), 12345678901234)
    header = ("prompt", "b", "c", "d", "e", "completion")
    made = reader(workbook([header, row]), "a.xlsx")
    [batch] = made.batches()
    assert batch.examples == [Row(2, "7", "12345678901234", ("b", "c", "d", "e"))]
    assert made.description.ignored == ("b", "c", "d", "e")
    data = parquet({"prompt": [1, 2], "completion": [0.5, 3.0]})
    assert read(data, "a.parquet") == [Row(1, "1", "0.5"), Row(2, "2", "3")]


def test_sheets_are_named_and_one_is_chosen() -> None:
    data = workbook([("prompt", "completion"), ("a", "b")])
    made = reader(data, "a.xlsx")
    list(made.batches())
    assert (made.description.sheet, made.description.sheets) == ("Data", ("Data", "Notes"))
    [found] = read(data, "a.xlsx", sheet="Nope")
    assert 'there is no sheet "Nope"; the sheets are "Data", "Notes"' in str(found)


def test_a_cell_that_excel_truncated_is_an_error() -> None:
    data = workbook([("prompt", "completion"), ("a", "b" * 32_767)])
    [found] = read(data, "a.xlsx")
    assert "where Excel cuts texts" in str(found)


SHAPES: list[tuple[str, dict[str, Any], Example]] = [
    ("Alpaca", {"instruction": "do", "input": "x", "output": "y"}, Row(1, "do\n\nx", "y")),
    ("Alpaca", {"instruction": "do", "output": "y"}, Row(1, "do", "y")),
    ("text", {"text": "all of it"}, Row(1, "", "all of it")),
    ("prompt/completion", {"Prompt": "a", " Completion": "b"}, Row(1, "a", "b")),
    (
        "ShareGPT",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Conversation(1, [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]),
    ),
    (
        "chat",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "a", "weight": 1},
            ],
            "id": 3,
        },
        Conversation(
            1,
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 1}],
            extra=("id",),
        ),
    ),
    (
        "chat",
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "f", "arguments": "{}"},
                }
            ],
            "functions": [{"name": "f"}],
        },
        Conversation(
            1,
            [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {"type": "function", "function": {"name": "f", "arguments": "{}"}}
                    ],
                }
            ],
            [{"type": "function", "function": {"name": "f"}}],
        ),
    ),
]


@pytest.mark.parametrize(("shape", "record", "expected"), SHAPES)
def test_shapes_are_detected_by_their_keys(
    shape: str, record: dict[str, Any], expected: Example
) -> None:
    made = reader(json.dumps(record).encode(), "a.jsonl")
    [batch] = made.batches()
    assert batch.examples == [expected], batch.findings
    assert made.description.shape == shape


USER = {"role": "user", "content": "q"}
WRONG_CHATS = [
    ([], '"messages" is empty'),
    ([USER], "no assistant message"),
    ([{"role": "assistant", "content": "a", "weight": 0}], "every assistant message has weight 0"),
    ([USER, {"role": "bot", "content": "a"}], 'messages[1].role is "bot", expected one of'),
    ([USER, {"role": {"a": 1}, "content": "a"}], "messages[1].role is an object, expected one"),
    ([USER, {"role": "assistant"}], "messages[1] has no content"),
    ([{"role": "user", "content": [{"type": {}, "text": "a"}]}], "only text is supported"),
    ([USER, {"role": "assistant", "content": None}], "messages[1] has no content"),
    ([USER, {"role": "assistant", "content": ""}], "messages[1].content is empty"),
    ([USER, {"role": "assistant", "content": {"a": 1}}], "messages[1].content is an object"),
    (
        [USER, {"role": "assistant", "content": "a", "weight": 0.5}],
        'weight is "0.5", expected 0 or 1',
    ),
    ([{**USER, "weight": 1}], "only assistant messages have a weight"),
    ([USER, {"role": "assistant", "content": "\x00"}], "holds a NUL"),
    ([USER, {"role": "assistant", "content": [{"type": "image_url"}]}], "only text is supported"),
    (
        [
            USER,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": 5}}],
            },
        ],
        "tool_calls[0].function.arguments is a number, expected an object or its JSON as a string",
    ),
    (
        [
            USER,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
            },
        ],
        "arguments is not valid JSON",
    ),
    ("text", '"messages" is a text, but not a JSON array'),
]


@pytest.mark.parametrize(("messages", "expected"), WRONG_CHATS)
def test_a_wrong_chat_names_its_message(messages: Any, expected: str) -> None:
    good = {"messages": [USER, {"role": "assistant", "content": "a"}]}
    lines = [json.dumps(good), json.dumps({"messages": messages})]
    found = read("\n".join(lines).encode())
    assert isinstance(found[-1], Finding)
    assert str(found[-1]).startswith("line 2, column 14: ")
    assert expected.replace('"messages" is a text', "messages is a text") in str(found[-1])


def test_columns_can_be_mapped() -> None:
    data = b"id,q,a\n1,x,y\n"
    assert read(data, "a.csv", prompt_column="q", completion_column="a") == [
        Row(2, "x", "y", ("id",))
    ]
    assert read(data, "a.csv", completion_column="a") == [Row(2, "", "y", ("id", "q"))]
    [found] = read(data, "a.csv", prompt_column="nope")
    assert 'there is no column "nope"; the columns are "id", "q", "a"' in str(found)


def test_folders_and_patterns_are_found_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.csv", "a.jsonl", "sub/c.json.gz", "readme.md", ".hidden.csv"):
        (tmp_path / name).write_text("x")
    names = [Path(source.name).name for source in find_sources([str(tmp_path)], None, tmp_path)]
    assert names == ["a.jsonl", "b.csv", "c.json.gz"]
    matched = find_sources([f"{tmp_path}/*.csv"], None, tmp_path)
    assert [Path(source.name).name for source in matched] == ["b.csv"]
    for wrong, words in (("nothing.csv", "does not exist"), ("*.xlsx", "no file matches")):
        with pytest.raises(DataError, match=words):
            find_sources([f"{tmp_path}/{wrong}"], None, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no file with the ending"):
        find_sources([str(tmp_path / "empty")], None, tmp_path)


def test_a_second_pass_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(FILES["a.csv.gz"])
    [source] = find_sources([str(path)], None, tmp_path)
    made = Reader(source)
    assert list(made.batches()) == list(made.batches())
    assert len(source.identity.sha256) == 64


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
pairs = st.lists(st.tuples(text, text.filter(bool)), min_size=1, max_size=5)


@settings(max_examples=40)
@given(pairs, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]))
def test_any_text_survives_tables(rows: list[tuple[str, str]], delimiter: str, end: str) -> None:
    name = "a.tsv" if delimiter == "\t" else "a.csv"
    found = read(delimited(rows, delimiter, end), name)
    assert [(item.prompt, item.completion) for item in found if isinstance(item, Row)] == rows


@settings(max_examples=40)
@given(pairs, st.sampled_from([None, 1, 4]), st.booleans())
def test_any_text_survives_json_documents(
    rows: list[tuple[str, str]], indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(objects(rows), indent=indent, ensure_ascii=ascii_only).encode()
    found = read(data, "a.json")
    assert [(item.prompt, item.completion) for item in found if isinstance(item, Row)] == rows


@settings(max_examples=30)
@given(pairs)
def test_written_files_can_be_read_again(rows: list[tuple[str, str]]) -> None:
    data = b"".join(to_line(Row(1, *pair)) for pair in rows)
    found = read(data)
    assert b"".join(to_line(item) for item in found if isinstance(item, Row)) == data


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.json", "a.txt", "a.tsv", "a.jsonl"]))
def test_no_bytes_crash_any_reader(data: bytes, name: str) -> None:
    limits = DataLimits(max_file_bytes=300, max_line_bytes=50, max_nesting=3)
    for item in read(data, name, limits=limits):
        assert str(item).isprintable() if isinstance(item, Finding) else to_line(item)


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet"])
def test_no_flipped_byte_crashes_a_binary_reader(name: str) -> None:
    whole = FILES[name]
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[at] ^= 0x55
        read(bytes(data), name)
        read(whole[:at] if at else b"", name)
