"""Each line of a JSONL file is a JSON object, however the file arrives."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_gateway.files.json_lines import BOM, LineCheck, LineError

LIMIT = 100


def problem(data: bytes, *, cuts: list[int] | None = None, limit: int = LIMIT) -> str | None:
    """The error of a file that arrives in blocks; None if it has none."""
    check = LineCheck(limit)
    edges = [0, *sorted(cuts or []), len(data)]
    try:
        for start, stop in pairwise(edges):
            check.feed(data[start:stop])
        check.finish()
    except LineError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}\n{"b": 2}\n',
        b'{"a": 1}\n{"b": 2}',  # without a line feed at the end
        b'{"a": 1}\r\n{"b": 2}\r\n',
        b'{"a": 1}\n\n  \n{"b": 2}\n\n\n',  # empty lines, which the data check counts
        BOM + b'{"a": 1}\n' + BOM + b'{"b": 2}\n',
        BOM + b'\n{"a": 1}\n',
        b'{"half a pair": "\\ud83d"}\n',
        b'{"long": ' + b"1" * 80 + b"}\n",
        b'  {"a": 1}  \n',
    ],
)
def test_lines_with_objects_are_right(data: bytes) -> None:
    assert problem(data) is None
    assert problem(data, cuts=list(range(len(data)))) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}\n[1]\n', "line 2: the line is valid JSON, but not a JSON object"),
        (b'{"a": 1}\n\n"text"', "line 3: the line is valid JSON, but not a JSON object"),
        (b"null\n", "line 1: the line is valid JSON, but not a JSON object"),
        (b'{"a": 1} {"b": 2}\n', "line 1: the line is not a JSON object"),
        (b'{"a": NaN}\n', "line 1: the line is not a JSON object"),
        (b'{"a": 1', "line 1: the line is not a JSON object"),
        (b"prompt,completion\n", "line 1: the line is not a JSON object"),
        (b'{"a": "\xff"}\n', "line 1: the line is not UTF-8 text"),
        ('{"a": 1}\n'.encode("utf-16"), "line 1: the line is not UTF-8 text"),
        (b'{}\n{"a": "' + b"x" * LIMIT + b'"}\n', "line 2: the line has more than 100 bytes"),
        (b"x" * 1000, "line 1: the line has more than 100 bytes"),
    ],
)
def test_the_first_wrong_line_has_its_number(data: bytes, expected: str) -> None:
    assert problem(data) == expected
    assert problem(data, cuts=list(range(len(data)))) == expected


def test_a_line_as_long_as_the_limit_is_right() -> None:
    line = b'{"a": "' + b"x" * (LIMIT - 9) + b'"}'
    assert len(line) == LIMIT
    for end in (b"", b"\n", b"\r\n"):
        assert problem(line + end) is None
        assert problem(b" " + line + end) == "line 1: the line has more than 100 bytes"


def test_a_line_that_is_nested_too_deeply_is_wrong() -> None:
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert problem(deep, limit=10**6) == "line 1: the line is nested too deeply"


LINES = st.lists(
    st.one_of(
        st.dictionaries(st.text(max_size=3), st.text(max_size=5)).map(
            lambda value: json.dumps(value).encode()
        ),
        st.sampled_from([b"", b" ", b"[]", b"1", b"{", b"{}", b"\xff", BOM, b"{}{}"]),
        st.binary(max_size=6).filter(lambda data: b"\n" not in data),
    ),
    max_size=6,
)


@given(LINES, st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 200), max_size=5))
def test_a_file_is_judged_alike_however_it_is_cut(
    lines: list[bytes], end: bytes, cuts: list[int]
) -> None:
    data = end.join(lines)
    found = problem(data, cuts=[min(cut, len(data)) for cut in cuts])
    assert found == problem(data)
    wrong = [number for number, line in enumerate(data.split(b"\n"), 1) if not is_object(line)]
    assert (found is None) == (not wrong)
    if found is not None:
        assert found.startswith(f"line {wrong[0]}: ")


def is_object(line: bytes) -> bool:
    """A slow judgment with Python's own parser. Empty lines are right."""
    if len(line.rstrip(b"\r")) > LIMIT:
        return False
    line = line.removeprefix(BOM) if not line.isspace() else b""
    if not line.strip():
        return True
    try:
        return isinstance(json.loads(line.decode(), parse_constant=refuse), dict)
    except ValueError:
        return False


def refuse(_: str) -> None:
    raise ValueError
