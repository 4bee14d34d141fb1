"""One reader, one result: a row is the same example, or the same finding, in every format."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from finetune_data.read.examples import Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.rewrite.rewriting import to_line
from tests.data.builders import read
from tests.data.formats.test_formats import workbook

Record = dict[str, Any]


def as_jsonl(records: list[Record]) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


def as_json(records: list[Record]) -> bytes:
    return json.dumps(records, indent=1, ensure_ascii=False).encode()


def as_parquet(records: list[Record], schema: Any = None) -> bytes:
    """Columns of structs, whose types pyarrow infers from all rows."""
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(records, schema=schema), file)
    return file.getvalue()


def with_json_cells(records: list[Record]) -> list[Record]:
    """The same records with JSON as text for lists, as in tables."""
    return [
        {
            key: json.dumps(value) if isinstance(value, list | dict) else value
            for key, value in record.items()
        }
        for record in records
    ]


def as_csv(records: list[Record], delimiter: str = ",") -> bytes:
    file = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(file, names, restval="", delimiter=delimiter)
    writer.writeheader()
    writer.writerows(with_json_cells(records))
    return file.getvalue().encode()


def as_xlsx(records: list[Record]) -> bytes:
    names = list(dict.fromkeys(name for record in records for name in record))
    rows = [tuple(record.get(name) for name in names) for record in with_json_cells(records)]
    return workbook([tuple(names), *rows])


def results(data: bytes, name: str) -> list[Any]:
    """What the trainer gets of each row, to the byte."""
    return [result(item) for item in read(data, name)]


def result(item: Example | Finding) -> Any:
    if isinstance(item, Finding):
        return item.code, item.message
    return to_line(item), item.extra


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
words = text.filter(bool)
whole = st.integers(-(2**53), 2**53)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-100, 100)


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Record]:
    """An object with some of the keys, in this order; some of their values are null."""
    optional = {key: st.none() | value for key, value in fields.items()}
    return st.fixed_dictionaries({}, optional=optional).map(
        lambda found: {key: found[key] for key in fields if key in found}
    )


def exactly(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Record]:
    """An object with all of the keys, in this order."""
    found = st.fixed_dictionaries(fields)
    return found.map(lambda values: {key: values[key] for key in fields})


arguments = some(
    {
        "city": text,
        "days": whole,
        "ratio": numbers,
        "exact": st.booleans(),
        "tags": st.lists(st.none() | text, max_size=3),
        "place": some({"x": numbers, "y": text}),
    }
)
parameter = some(
    {
        "type": words,
        "description": text,
        "enum": st.lists(st.none() | text, max_size=2),
        "minimum": numbers,
        "default": whole,
        "nullable": st.booleans(),
    }
)
tool = exactly(
    {
        "type": st.just("function"),
        "function": exactly(
            {
                "name": words,
                "description": st.none() | text,
                "strict": st.none() | st.booleans(),
                "parameters": exactly(
                    {
                        "type": st.just("object"),
                        "properties": some({"city": parameter, "days": parameter}),
                        "required": st.none() | st.lists(words, max_size=2),
                        "additionalProperties": st.none() | st.booleans(),
                    }
                ),
            }
        ),
    }
)


def call(given_arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    function = exactly({"name": words, "arguments": given_arguments})
    return exactly({"id": st.none() | words, "type": st.just("function"), "function": function})


def chats(given_arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    """Records of chats, most of them valid."""
    message = some(
        {
            "content": text,
            "reasoning_content": text,
            "thinking": text,
            "tool_calls": st.lists(call(given_arguments), max_size=2),
            "weight": st.sampled_from([0, 1, 1.0, 0.5]),
            "refusal": text,
        }
    )
    roles = st.sampled_from(["user", "system", "tool", "bot"])
    talk = st.tuples(
        exactly({"role": roles, "content": text}),
        message.map(lambda found: {"role": "assistant", **found}),
    )
    messages = st.lists(talk, max_size=3).map(lambda found: [*chain.from_iterable(found)])
    tools = st.none() | st.lists(tool, max_size=2)
    sources = st.sampled_from([None, "web", "mail"])
    return st.fixed_dictionaries(
        {"messages": messages}, optional={"tools": tools, "source": sources}
    )


def complete_chat(given_arguments: Any) -> Record:
    """A chat with every key, so that the structs of pyarrow have all fields, in this order."""
    parameter = {
        "type": "integer",
        "description": "d",
        "enum": ["a", None],
        "minimum": 0.5,
        "default": 1,
        "nullable": True,
    }
    return {
        "messages": [
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "content": "a",
                "reasoning_content": "why",
                "thinking": "why",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": given_arguments},
                    }
                ],
                "weight": 1.0,
                "refusal": "no",
            },
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "strict": True,
                    "parameters": {
                        "type": "object",
                        "properties": {"city": parameter, "days": parameter},
                        "required": ["city"],
                        "additionalProperties": False,
                    },
                },
            }
        ],
        "source": "web",
    }


COMPLETE = {
    "city": "Paris",
    "days": 3,
    "ratio": 0.5,
    "exact": True,
    "tags": ["a", None],
    "place": {"x": 1.5, "y": "b"},
}


def check_chats(data: st.DataObject, are_objects: bool) -> None:
    written = arguments if are_objects else arguments.map(json.dumps)
    first = complete_chat(COMPLETE if are_objects else json.dumps(COMPLETE))
    records = [first, *data.draw(st.lists(chats(written), max_size=3))]
    expected = results(as_jsonl(records), "a.jsonl")
    assert len(expected) == len(records)
    assert isinstance(expected[0][0], bytes), expected[0]
    assert results(as_json(records), "a.json") == expected
    assert results(as_parquet(records), "a.parquet") == expected
    assert results(as_csv(records), "a.csv") == expected
    assert results(as_csv(records, "\t"), "a.tsv") == expected
    assert results(as_xlsx(records), "a.xlsx") == expected


patient = settings(suppress_health_check=[HealthCheck.too_slow])


@settings(patient, max_examples=15)
@given(st.data(), st.booleans())
def test_chats_are_the_same_in_every_format(data: st.DataObject, are_objects: bool) -> None:
    check_chats(data, are_objects)


@pytest.mark.slow
@settings(patient, max_examples=100)
@given(st.data(), st.booleans())
def test_many_chats_are_the_same_in_every_format(data: st.DataObject, are_objects: bool) -> None:
    check_chats(data, are_objects)


labels = st.sampled_from([text, whole, numbers.map(float), st.booleans()])


@settings(max_examples=25)
@given(st.data(), labels, labels)
def test_prompts_and_completions_are_the_same_in_every_format(
    data: st.DataObject, prompts: st.SearchStrategy[Any], completions: st.SearchStrategy[Any]
) -> None:
    row = {"prompt": st.none() | prompts, "completion": st.none() | completions}
    records = data.draw(st.lists(st.fixed_dictionaries(row), min_size=1, max_size=4))
    expected = results(as_jsonl(records), "a.jsonl")
    assert len(expected) == len(records)
    assert results(as_json(records), "a.json") == expected
    assert results(as_parquet(records), "a.parquet") == expected


@pytest.mark.parametrize(
    ("prompt", "completion"), [(1, 0.5), (2**40, True), ("a", -3.0), ("b", 1e-9), ("c", 12345.678)]
)
def test_typed_cells_of_a_workbook_are_the_same_as_json(prompt: Any, completion: Any) -> None:
    records = [{"prompt": prompt, "completion": completion}]
    assert results(as_xlsx(records), "a.xlsx") == results(as_jsonl(records), "a.jsonl")


MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
STRINGS = [
    pyarrow.string(),
    pyarrow.large_string(),
    pyarrow.string_view(),
    pyarrow.binary(),
    pyarrow.large_binary(),
    pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
]


@pytest.mark.parametrize("kind", STRINGS, ids=str)
def test_every_type_of_text_in_parquet_is_text(kind: Any) -> None:
    values = ["ü 中", "b"]
    plain = pyarrow.array(values)
    column = plain.dictionary_encode() if pyarrow.types.is_dictionary(kind) else plain.cast(kind)
    table = pyarrow.table({"prompt": column, "completion": column})
    file = io.BytesIO()
    parquet.write_table(table, file)
    assert read(file.getvalue(), "a.parquet") == [Row(n, it, it) for n, it in enumerate(values, 1)]


def test_bytes_that_are_no_text_are_a_finding() -> None:
    table = {"prompt": pyarrow.array([b"\xff", b"a"]), "completion": ["x", "y"]}
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(table), file)
    finding, row = read(file.getvalue(), "a.parquet")
    assert '"prompt" is not valid UTF-8: byte 0xff' in str(finding)
    assert row == Row(2, "a", "y")


TIME = datetime(2026, 1, 2, 3, 4, 5)
TYPED = [
    (pyarrow.array([Decimal("1.50")]), "1.50"),
    (pyarrow.array([Decimal("100")]), "100"),
    (pyarrow.array([TIME], pyarrow.timestamp("ns")), "2026-01-02 03:04:05"),
    (pyarrow.array([TIME], pyarrow.timestamp("s")), "2026-01-02 03:04:05"),
    (
        pyarrow.array([TIME.replace(tzinfo=UTC)], pyarrow.timestamp("ns", "UTC")),
        "2026-01-02 03:04:05+00:00",
    ),
    (pyarrow.array([date(2026, 1, 2)]), "2026-01-02"),
    (pyarrow.array([1_000_000_001], pyarrow.timestamp("ns")), "1970-01-01 00:00:01"),
    (pyarrow.array([2**63], pyarrow.uint64()), "9223372036854775808"),
    (pyarrow.array([0.25], pyarrow.float32()), "0.25"),
    (pyarrow.array([0.5], pyarrow.float16()), "0.5"),
    (pyarrow.array([7], pyarrow.int8()), "7"),
    (pyarrow.array([float("nan")]), None),
]


@pytest.mark.parametrize(("column", "expected"), TYPED, ids=lambda it: str(getattr(it, "type", it)))
def test_typed_columns_of_parquet_are_text(column: Any, expected: str | None) -> None:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"prompt": ["p"], "completion": column}), file)
    [found] = read(file.getvalue(), "a.parquet")
    if expected is None:
        assert isinstance(found, Finding)
        assert found.message == '"completion" is empty'
    else:
        assert found == Row(1, "p", expected)


def nested_types() -> list[Any]:
    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.large_string())])
    pairs = pyarrow.map_(pyarrow.string(), pyarrow.string())
    stamped = pyarrow.struct([*message, ("created", pyarrow.timestamp("ns"))])
    return [
        pyarrow.list_(message),
        pyarrow.large_list(message),
        pyarrow.list_(message, 2),
        pyarrow.list_(pairs),
        pyarrow.large_list(pairs),
        pyarrow.list_(stamped),
        pyarrow.large_list(stamped),
    ]


@pytest.mark.parametrize("kind", nested_types(), ids=str)
def test_every_type_of_list_and_object_in_parquet_is_a_chat(kind: Any) -> None:
    schema = pyarrow.schema([("messages", kind)])
    data = as_parquet([{"messages": MESSAGES}], schema)
    assert read(data, "a.parquet") == [Conversation(1, MESSAGES)]


def test_a_struct_of_lists_is_a_chat() -> None:
    columns = {key: [message[key] for message in MESSAGES] for key in ("role", "content")}
    assert read(as_parquet([{"messages": columns}]), "a.parquet") == [Conversation(1, MESSAGES)]


def test_arguments_and_schemas_can_be_maps() -> None:
    kind = pyarrow.map_(pyarrow.string(), pyarrow.string())
    function = pyarrow.struct([("name", pyarrow.string()), ("arguments", kind)])
    message = pyarrow.struct(
        [
            ("role", pyarrow.string()),
            ("content", pyarrow.string()),
            ("tool_calls", pyarrow.list_(pyarrow.struct([("function", function)]))),
        ]
    )
    calls = [{"function": {"name": "f", "arguments": {"x": "1", "y": None}}}]
    records = [{"messages": [MESSAGES[0], {"role": "assistant", "tool_calls": calls}]}]
    data = as_parquet(records, pyarrow.schema([("messages", pyarrow.list_(message))]))
    assert results(data, "a.parquet") == results(as_jsonl(records), "a.jsonl")
    assert b'\\"x\\": \\"1\\"}' in results(data, "a.parquet")[0][0]


def test_booleans_and_numbers_of_a_tool_stay() -> None:
    function = {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"days": {"type": "integer", "minimum": 1, "default": 2.5}},
            "additionalProperties": False,
        },
    }
    records = [{"messages": MESSAGES, "tools": [{"type": "function", "function": function}]}]
    for name, data in (
        ("a.jsonl", as_jsonl(records)),
        ("a.parquet", as_parquet(records)),
        ("a.csv", as_csv(records)),
    ):
        [found] = read(data, name)
        assert isinstance(found, Conversation)
        assert json.dumps(found.tools) == json.dumps(records[0]["tools"])


def test_the_row_numbers_of_pandas_are_no_column() -> None:
    data = as_parquet([{"text": "a", "__index_level_0__": 5}])
    assert read(data, "a.parquet") == [Row(1, "", "a")]


def test_a_parquet_file_with_a_column_twice_is_refused() -> None:
    table = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    file = io.BytesIO()
    parquet.write_table(table, file)
    [finding] = read(file.getvalue(), "a.parquet")
    assert 'the file has the column "text" twice' in str(finding)
