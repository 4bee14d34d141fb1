"""Spreadsheets as people export them: separator lines, empty columns, old line ends, encodings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_data.read.examples import Row
from finetune_data.read.findings import Finding
from tests.data.builders import compress, read, reader
from tests.data.formats.test_formats import parquet, workbook

BOM = "\ufeff"
PLAIN = "prompt,completion\none,1\ntwo ü,2\n"
PAIRS = [("one", "1"), ("two ü", "2")]


def pairs(data: bytes, name: str = "a.csv", **options: Any) -> list[tuple[str, str]]:
    found = read(data, name, **options)
    assert all(isinstance(item, Row) for item in found), found
    return [(item.prompt, item.completion) for item in found if isinstance(item, Row)]


def notes(data: bytes, name: str = "a.csv") -> tuple[str, ...]:
    made = reader(data, name)
    list(made.batches())
    return made.description.notes


SEMICOLONS = PLAIN.replace(",", ";")
TABS = PLAIN.replace(",", "\t")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "text",
    [
        f"sep=;\n{SEMICOLONS}",
        f'"sep=;"\n{SEMICOLONS}',
        f"{BOM}sep=;\n{SEMICOLONS}",
        f"SEP=,\n{PLAIN}",
        f"sep=\t\n{TABS}",
        f"sep=|\n{PLAIN.replace(',', '|')}",
        f"sep=^\n{PLAIN.replace(',', '^')}",
        f"sep=;\n{BOM}{SEMICOLONS}",
    ],
)
def test_the_separator_line_of_excel_is_read(text: str, end: str) -> None:
    assert pairs(text.replace("\n", end).encode()) == PAIRS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_header_shows_the_delimiter_whatever_the_name(name: str, delimiter: str) -> None:
    assert pairs(PLAIN.replace(",", delimiter).encode(), name) == PAIRS
    assert pairs(b'text\n"a, b"\n', name) == [("", "a, b")]


def test_a_separator_line_keeps_the_numbers_of_the_lines() -> None:
    [row, finding] = read(b"sep=;\nprompt;completion\na;b\nc\n", "a.csv")
    assert row == Row(3, "a", "b")
    assert str(finding) == "line 4: 1 cell, but the header has 2 columns"


@pytest.mark.parametrize(
    "text",
    [
        "prompt,completion,\none,1,\ntwo ü,2,\n",
        "prompt,completion,,,\none,1,,,\ntwo ü,2\n",
        "prompt,completion\none,1,,\ntwo ü,2,\n",
        "prompt,completion,,\none,1,,\n,,,\n\ntwo ü,2,,\n,,,\n,,,\n",
        ",,\n\nprompt,completion,\none,1,\ntwo ü,2,\n",
        ",prompt,,completion\n,one,,1\n,two ü,,2\n",
        "\ufeff\ufeffprompt,completion\none,1\ntwo ü,2\n",
        f"{PLAIN.partition('two')[0]}{BOM}two ü,2\n",
    ],
)
def test_empty_columns_and_rows_of_a_spreadsheet_are_ignored(text: str) -> None:
    assert pairs(text.encode()) == PAIRS
    cells = [tuple(line.strip(BOM).split(",")) for line in text.splitlines()]
    rows = [tuple(cell or None for cell in row) for row in cells]
    assert pairs(workbook(rows), "a.xlsx") == PAIRS


def test_a_column_without_a_name_is_reported() -> None:
    text = ",prompt,completion\n0,one,1\n1,two ü,2\n"
    assert pairs(text.encode()) == PAIRS
    assert notes(text.encode()) == ("column 1 has no name and is ignored",)
    rows = [tuple(line.split(",")) for line in text.splitlines()]
    assert notes(workbook(rows), "a.xlsx") == ("column 1 has no name and is ignored",)


@pytest.mark.parametrize(
    "header", ["prompt,completion", "prompt,completion,", "prompt,completion,,"]
)
def test_cells_behind_the_last_name_are_refused(header: str) -> None:
    """A comma in a cell without quotes must not cut the text."""
    text = f"{header}\nHello,Hi, how are you?\n"
    [finding] = read(text.encode(), "a.csv")
    assert str(finding) == "line 2: 3 cells, but the header has 2 columns"
    rows = [tuple(cell or None for cell in line.split(",")) for line in text.splitlines()]
    [finding] = read(workbook(rows), "a.xlsx")
    assert str(finding) == "row 2: 3 cells, but the header has 2 columns"


def test_the_header_of_a_joined_file_is_a_finding() -> None:
    [first, finding, second] = read(
        f"prompt,completion\na,b\n{BOM}prompt,completion\nc,d\n".encode(), "a.csv"
    )
    assert (first, second) == (Row(2, "a", "b"), Row(4, "c", "d"))
    assert str(finding) == "line 3: the header again: were files joined?"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.json"])
def test_lines_can_end_like_on_old_macs(name: str) -> None:
    lines = [json.dumps({"prompt": p, "completion": c}) for p, c in PAIRS]
    text = {
        "a.csv": PLAIN,
        "a.tsv": TABS,
        "a.txt": "one\ntwo ü\n",
        "a.jsonl": "\n".join(lines),
        "a.json": "\n".join(lines),
    }[name]
    found = read(text.replace("\n", "\r").encode(), name)
    assert found == read(text.encode(), name)
    assert len(found) == 2
    if name != "a.txt":
        assert pairs(text.replace("\n", "\r").encode(), name) == PAIRS


def test_a_cell_keeps_its_lines_if_rows_end_like_on_old_macs() -> None:
    assert pairs(b'prompt,completion\r"a\nb",c\rd,"e\rf"\r') == [("a\nb", "c"), ("d", "e\nf")]


def test_a_carriage_return_in_a_cell_stays() -> None:
    assert pairs(b'prompt,completion\n"a\rb",c\n') == [("a\rb", "c")]
    assert pairs(b'prompt,"completion"\r\n"a\rb",c\r\n') == [("a\rb", "c")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", [BOM, ""])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.txt", "a.csv.gz"])
def test_utf_16_is_read_with_and_without_a_mark(encoding: str, mark: str, name: str) -> None:
    lines = [json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) for p, c in PAIRS]
    text = {
        "a.csv": PLAIN,
        "a.csv.gz": PLAIN,
        "a.tsv": TABS,
        "a.txt": TABS,  # Excel's Unicode Text
        "a.json": f"[{','.join(lines)}]",
        "a.jsonl": "\n".join(lines),
    }[name]
    data = (mark + text.replace("\n", "\r\n")).encode(encoding)
    assert pairs(compress(data) if name.endswith("gz") else data, name) == PAIRS


def test_utf_16_of_other_scripts_and_large_files_is_read() -> None:
    rows = [(f"问题 {n} 🙂", "答" * 40) for n in range(5000)]
    text = "prompt,completion\n" + "".join(f"{p},{c}\n" for p, c in rows)
    for encoding in ("utf-16-le", "utf-16-be", "utf-16", "utf-32"):
        assert pairs(text.encode(encoding)) == rows


@pytest.mark.parametrize("cut", [1, 3])
def test_broken_utf_16_is_a_finding(cut: int) -> None:
    data = (PLAIN + "a,🙂").encode("utf-16-le")[:-cut]
    found = read(data, "a.csv")
    assert isinstance(found[-1], Finding)
    assert "UTF-16 text is broken or cut off" in found[-1].message


def test_half_a_surrogate_pair_in_utf_16_is_a_finding_of_its_line() -> None:
    data = "prompt,completion\na,\ud83d\nb,c\n".encode("utf-16-le", "surrogatepass")
    [finding, row] = read(data, "a.csv")
    assert isinstance(finding, Finding)
    assert finding.line == 2
    assert row == Row(3, "b", "c")


def test_a_code_page_of_windows_is_named_by_the_user() -> None:
    data = PLAIN.encode("cp1252")
    [first, finding] = read(data, "a.csv")
    assert isinstance(first, Row)
    hint = "save it as UTF-8 or run `finetune prepare-data FILE --encoding cp1252`"
    assert str(finding) == f'line 3: "prompt" is not valid UTF-8: byte 0xfc; {hint}'
    assert pairs(data, encoding="cp1252") == PAIRS
    assert pairs(compress(data), "a.csv.gz", encoding="cp1252") == PAIRS
    assert pairs(PLAIN.encode(), encoding="utf-8") == PAIRS
    [finding] = read(PLAIN.encode("cp1252") + b"\x81", "a.csv", encoding="cp1252")
    assert "the cp1252 text is broken" in str(finding)
    [finding] = read("prompt,complétion\na,b\n".encode("cp1252"), "a.csv")
    assert "the header is not valid UTF-8: byte 0xe9" in str(finding)


def test_a_text_with_a_header_is_a_table() -> None:
    assert pairs(TABS.encode(), "a.txt") == PAIRS
    assert "the file is named as a text, but is a table" in notes(TABS.encode(), "a.txt")
    assert read(b"prompt\nthe completion\n", "a.txt") == [
        Row(1, "", "prompt"),
        Row(2, "", "the completion"),
    ]
    assert len(read(TABS.encode(), "a.txt", format="txt")) == 3


def test_byte_order_marks_inside_joined_files_are_ignored() -> None:
    lines = [json.dumps({"prompt": p, "completion": c}) for p, c in PAIRS]
    assert pairs(f"{BOM}{lines[0]}\n{BOM}{lines[1]}\n".encode(), "a.jsonl") == PAIRS
    assert pairs(f"{BOM}{lines[0]}\n{BOM}{lines[1]}\n{BOM}".encode(), "a.json") == PAIRS
    assert pairs(f"{BOM}{BOM}[{lines[0]},\n{lines[1]}]".encode(), "a.json") == PAIRS


def test_a_mark_inside_a_text_stays() -> None:
    row = json.dumps({"prompt": f"{BOM}a", "completion": "b"}, ensure_ascii=False)
    assert pairs(row.encode(), "a.jsonl") == [(f"{BOM}a", "b")]
    assert pairs(f'prompt,completion\n"{BOM}a",b{BOM}\n'.encode()) == [(f"{BOM}a", f"b{BOM}")]


LABELS: list[tuple[Any, str]] = [
    (1, "1"),
    (0, "0"),
    (-3, "-3"),
    (1.0, "1"),
    (0.5, "0.5"),
    (True, "true"),
    (False, "false"),
    (2**53 + 1, "9007199254740993"),
    (1e-7, "1e-07"),
]


@pytest.mark.parametrize(("value", "text"), LABELS)
def test_labels_that_are_numbers_or_booleans_are_read_as_text(value: Any, text: str) -> None:
    record = {"prompt": "p", "completion": value}
    files = {
        "a.jsonl": json.dumps(record).encode(),
        "a.json": json.dumps([record]).encode(),
        "a.parquet": parquet({"prompt": ["p"], "completion": [value]}),
    }
    if abs(value) < 2**53:
        files["a.xlsx"] = workbook([("prompt", "completion"), ("p", value)])
    for name, data in files.items():
        assert pairs(data, name) == [("p", text)], name


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_null_is_an_empty_text(name: str) -> None:
    records = [{"prompt": None, "completion": "a"}, {"prompt": "b", "completion": None}]
    data = {
        "a.jsonl": "\n".join(map(json.dumps, records)).encode(),
        "a.json": json.dumps(records, indent=1).encode(),
        "a.parquet": parquet({"prompt": [None, "b"], "completion": ["a", None]}),
    }[name]
    row, finding = read(data, name)
    assert isinstance(row, Row)
    assert (row.prompt, row.completion) == ("", "a")
    assert isinstance(finding, Finding)
    assert finding.message == '"completion" is empty'


def test_a_number_that_json_cannot_keep_is_refused() -> None:
    [finding] = read(b'{"prompt": "a", "completion": 1e999}')
    assert str(finding) == 'line 1, column 31: "completion" is a number that is too large'
