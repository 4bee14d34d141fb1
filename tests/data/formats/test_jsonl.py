"""All errors of lines, and lines that look like errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.limits import DataLimits
from finetune_data.read import json_lines
from finetune_data.read.examples import Example, Row
from finetune_data.read.findings import Finding
from finetune_data.read.records import RecordConverter
from tests.data.builders import compress, parse, row, texts
from tests.data.builders import read as read_file

LIMITS = DataLimits(max_file_bytes=10_000, max_line_bytes=200)

WRONG_LINES = [
    ("not json", "column 1: not valid JSON: expected a value"),
    ('{"prompt": "a" "completion": "b"}', "column 16: not valid JSON: expected ','"),
    ('{"prompt": "a", "completion": "b"', "column 34: not valid JSON: expected ','"),
    ('{"prompt": "a", "completion": "b}', "column 31: not valid JSON: the string that starts here"),
    ('{"prompt": "a", completion: "b"}', "column 17: not valid JSON: expected a key in double"),
    ("{'prompt': 'a'}", "column 2: not valid JSON: expected a key in double quotes"),
    ('{"prompt" "a"}', "column 11: not valid JSON: expected ':'"),
    ('{"prompt": "a"}{"prompt": "b"}', "column 16: not valid JSON: more text after"),
    ('{"prompt": "a\tb"}', "column 14: not valid JSON: a control character"),
    ('{"prompt": "a\\x"}', "column 14: not valid JSON: an unknown escape"),
    ('{"prompt": "\\u12"}', "column 14: not valid JSON: expected four hexadecimal digits"),
    ('{"prompt": NaN}', "column 12: not valid JSON: NaN is not a JSON number"),
    ('{"prompt": "NaN", "n": [-Infinity]}', "column 25: not valid JSON: -Infinity is not a JSON"),
    ('["a", "b"]', "column 1: an array, expected an object with prompt and completion"),
    ('  "text"', "column 3: a string, expected an object"),
    ("null", "column 1: null, expected an object"),
    ("{}", 'column 1: missing key "prompt"; the object is empty'),
    ('{"prompt": "a"}', 'column 1: missing key "completion"; the line has "prompt"'),
    ('{"prompt": "a", "Completion": "b"}', 'missing key "completion"; did you mean "Completion"?'),
    ('{"prompt": "a", "x\\u001b[2J": ""}', '"x\\x1b[2J"'),
    ('{"prompt": [5], "completion": "b"}', 'column 12: "prompt" is an array, expected a string'),
    ('{"prompt": "a", "completion": null}', 'column 31: "completion" is empty'),
    ('{"completion": ["b"], "prompt": "a"}', 'column 16: "completion" is an array, expected'),
    ('{"prompt": {"completion": 1}, "completion": true}', 'column 12: "prompt" is an object'),
    ('{"prompt": "", "completion": {"completion": 1}}', 'column 30: "completion" is an object'),
    ('{"prompt": "a", "completion": ""}', 'column 31: "completion" is empty'),
    ('{"prompt":"a","completion":"b","prompt":"c"}', 'column 41: the key "prompt" occurs twice'),
    ('{"prompt": "a\\u0000", "completion": "b"}', 'column 12: "prompt" holds a NUL character'),
    ('{"prompt": "a", "completion": "\\ud83d"}', "half of a surrogate pair (\\ud83d)"),
    (b'{"prompt": "\xc3\xa9\xff"}', "column 14: not valid UTF-8: byte 0xff"),
    (b'{"prompt": "\xed\xa0\xbd"}', "column 13: not valid UTF-8: byte 0xed"),
    ('{"prompt": "a", "x": ' + "[" * 64 + "]" * 64 + "}", "column 85: nested deeper than 64"),
    ("[" * 100_000, "column 65: nested deeper than 64 levels"),
    ('{"a":' * 100_000, "nested deeper than 64 levels"),
    ('{"prompt": ' + "9" * 5000 + "}", '"prompt" is a number'),
]


@pytest.mark.parametrize(("line", "expected"), WRONG_LINES)
def test_a_wrong_line_has_its_place_and_its_reason(line: str | bytes, expected: str) -> None:
    finding = parse(line)
    assert isinstance(finding, Finding)
    assert str(finding).startswith("line 17, column ")
    assert expected in str(finding)
    assert len(str(finding)) < 250
    assert str(finding).isprintable()


def test_text_stays_text() -> None:
    assert row('{"prompt": " null \\n", "completion": "NA"}') == Row(17, " null \n", "NA")
    assert row('{"prompt": "", "completion": " "}') == Row(17, "", " ")
    assert row('{"prompt": "\\ud83d\\ude00é", "completion": "中"}') == Row(17, "😀é", "中")


def test_brackets_and_quotes_inside_strings_do_not_nest() -> None:
    text = json.dumps({"prompt": '[{"' * 100 + "\\", "completion": "]"})
    assert row(text).prompt == '[{"' * 100 + "\\"


def test_extra_keys_are_remembered_and_no_error() -> None:
    assert row('{"id": 1, "prompt": "", "completion": "b", "x": [{}, {}]}').extra == ("id", "x")


def read(data: bytes, limits: DataLimits = LIMITS) -> list[Example | Finding]:
    return read_file(data, limits=limits)


RIGHT = b'{"prompt": "a", "completion": "b"}'


@pytest.mark.parametrize(
    "data",
    [
        RIGHT,
        RIGHT + b"\n",
        RIGHT + b"\r\n",
        b"\xef\xbb\xbf" + RIGHT + b"\n\n  \n\r\n",
        RIGHT.decode().encode("utf-16"),
        compress(RIGHT),
        compress(b"\xef\xbb\xbf" + RIGHT + b"\r\n"),
        compress(RIGHT[:9]) + compress(RIGHT[9:] + b"\n"),
    ],
)
def test_ends_marks_and_compression_do_not_matter(data: bytes) -> None:
    assert read(data) == [Row(1, "a", "b")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RIGHT + b"\n\n" + RIGHT, ["line 2: empty line"]),
        (RIGHT + b"\n\n \n\n" + RIGHT, ["line 2: empty lines up to line 4"]),
        (b"\n" + RIGHT, ["line 1: empty line"]),
        (RIGHT + b"\n" + b"x" * 5000 + b"\n" + RIGHT, ["line 2: longer than 200 bytes"]),
        (RIGHT + b"\n\n" + b"x" * 5000, ["line 2: empty line", "line 3: longer than 200 bytes"]),
        (b"x" * 201, ["line 1: longer than 200 bytes"]),
        ((RIGHT + b"\n") * 400, ["the file has 14,000 bytes, more than the 10,000 allowed"]),
        (compress(RIGHT + b"\n")[:-6], ["the gzip data is broken or cut off"]),
        (compress(RIGHT) + b"rubbish", ["the gzip data is broken"]),
        (compress(compress(RIGHT)), ["this is a gzip file inside a gzip file"]),
        (b"PK\x03\x04....", ["this is an XLSX or ZIP file"]),
        (b"PAR1....", ["the Parquet file cannot be read"]),
        (b"\xff\xd8\xff\xe0JFIF", ["this is a JPEG picture"]),
        (b"%PDF-1.7", ["this is a PDF document"]),
        (RIGHT.decode().encode("utf-16")[:-1], ["the UTF-16 text is broken or cut off"]),
    ],
)
def test_wrong_files_are_findings(data: bytes, expected: list[str]) -> None:
    found = texts([one for one in read(data) if isinstance(one, Finding)])
    assert len(found) == len(expected)
    for text, start in zip(found, expected, strict=True):
        assert start in text


def test_an_empty_file_has_no_rows_and_no_lines() -> None:
    for data in (b"", b"\xef\xbb\xbf", b"\n\n", compress(b"")):
        assert read(data) == []


def test_a_bomb_costs_what_the_limit_allows() -> None:
    bomb = compress(b"x" * 50_000_000)
    *_, last = read(bomb, DataLimits(max_file_bytes=1_000_000))
    assert isinstance(last, Finding)
    assert last.fatal
    assert "1,000,000 bytes, decompressed" in last.message


def test_lines_longer_than_a_block_of_reading_are_whole() -> None:
    long = {"prompt": "a" * 700_000, "completion": "b"}
    data = (json.dumps(long).encode() + b"\n") * 3
    prompts = [item.prompt for item in read(data, DataLimits()) if isinstance(item, Row)]
    assert [len(prompt) for prompt in prompts] == [700_000] * 3


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
examples = st.fixed_dictionaries(
    {"prompt": text, "completion": text.filter(bool)}, optional={"note": values, "other": values}
)


@settings(max_examples=50)
@given(
    st.lists(examples, max_size=6),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_any_rows_survive_a_round_trip(
    rows: list[dict[str, str]], ascii_only: bool, end: str, bom: bool, packed: bool
) -> None:
    lines = "".join(json.dumps(one, ensure_ascii=ascii_only) + end for one in rows)
    data = lines.encode("utf-8-sig" if bom else "utf-8")
    back = read(compress(data) if packed else data, DataLimits())
    assert [(one.prompt, one.completion) for one in back if isinstance(one, Row)] == [
        (one["prompt"], one["completion"]) for one in rows
    ]
    assert len(back) == len(rows)


TOKENS = [b'{"prompt":', b'"completion":', b'"a"', b",", b"}", b"[", b"{", b"\\", b'"', b"\\ud800"]
ENDS = [b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"NaN", b"1e999", b"\\u0000", b"null", RIGHT]
pieces = st.sampled_from(TOKENS + ENDS)
hostile = st.binary(max_size=60) | st.lists(pieces | st.binary(max_size=3)).map(b"".join)


@settings(max_examples=200)
@given(hostile, st.booleans())
def test_no_bytes_crash_the_reader(data: bytes, packed: bool) -> None:
    limits = DataLimits(max_file_bytes=300, max_line_bytes=50, max_nesting=3)
    for item in read(compress(data) if packed else data, limits):
        if isinstance(item, Row):
            assert item.completion
            item.prompt.encode()
        else:
            assert str(item).isprintable()


@given(st.binary(max_size=80), st.integers(0, 60))
def test_no_broken_gzip_crashes_the_reader(data: bytes, at: int) -> None:
    packed = bytearray(compress(data * 3))
    packed[min(at, len(packed) - 1)] ^= 0x41
    read(bytes(packed))
    read(bytes(packed[: max(0, len(packed) - at)]))


PARTS = ["\\u0061", "\\u0000", "\\ud83d", "\\ud83d\\ude00", '\\"role\\"', "role", "é", "a", ""]
quoted = st.lists(st.sampled_from(PARTS), max_size=2).map(lambda it: f'"{"".join(it)}"')
members = st.one_of(
    quoted.map(lambda text: f'"role": "user", "content": {text}'),
    quoted.map(lambda text: f'"content": {text}, "role": "assistant"'),
    st.sampled_from(
        [
            '"role": "user", "role": "assistant", "content": "a"',
            '"role": "assistant", "content": "a", "content": "b"',
            '"content": "a", "role": "user", "r\\u006fle": "assistant"',
        ]
    ),
    st.lists(
        st.tuples(
            st.sampled_from(['"role"', '"content"', '"weight"', '"r\\u006fle"', '"messages"']),
            st.one_of(quoted, st.sampled_from(['"user"', '"assistant"', "null", "1", "[]", "NaN"])),
        ).map(": ".join),
        max_size=3,
    ).map(", ".join),
)
ends = st.sampled_from(
    [
        *("}", "}", "} ", ', "tools": []}', ', "x": 1}'),
        *(', "messages": [{"role": "assistant", "content": "b"}]}', ', "m\\u0065ssages": []}'),
    ]
)


@settings(max_examples=200)
@given(st.lists(members, max_size=2), ends)
def test_a_plain_chat_is_what_the_exact_reader_makes_of_it(messages: list[str], end: str) -> None:
    inside = ", ".join(f"{{{message}}}" for message in messages)
    first = '{"messages": [{"role": "assistant", "content": "a"}]}'
    data = f'{first}\n{{"messages": [{inside}]{end}\n{first}'.encode()

    def found() -> list[Example | Finding]:
        converter = RecordConverter("train.jsonl", None, None)
        return [*json_lines.read_json_lines(iter([data]), DataLimits(), converter)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_plain_chat", lambda *_: None)
        expected = found()
    assert found() == expected
