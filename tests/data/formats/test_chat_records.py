"""Chats as datasets hold them: reasoning, weights, calls in every style, and keys nobody reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_data.lint.inspection import inspect
from finetune_data.read.examples import Conversation
from finetune_data.read.findings import Finding
from tests.data.builders import read, reader

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def record(*messages: Any, **columns: Any) -> bytes:
    return json.dumps({"messages": list(messages), **columns}).encode()


def sharegpt(*messages: Any, **columns: Any) -> bytes:
    return json.dumps({"conversations": list(messages), **columns}).encode()


def chat(data: bytes) -> Conversation:
    [found] = read(data)
    assert isinstance(found, Conversation), found
    return found


def problem(data: bytes) -> str:
    [found] = read(data)
    assert isinstance(found, Finding), found
    return found.message


def call(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


REASONED = {"role": "assistant", "content": "a", "reasoning_content": "why"}


@pytest.mark.parametrize(
    "written",
    [
        {"content": "a", "reasoning_content": "why"},
        {"content": "a", "thinking": "why"},
        {"content": "a", "reasoning": "why"},
        {"content": "a", "thinking": "why", "reasoning": None, "reasoning_content": ""},
        {"content": "a", "thinking": "why", "reasoning_content": "why"},
        {
            "content": "a",
            "reasoning": [{"type": "text", "text": "wh"}, {"type": "text", "text": "y"}],
        },
        {"content": "a", "thinking": [{"type": "thinking", "thinking": "why"}]},
        {"content": [{"type": "thinking", "thinking": "why"}, {"type": "text", "text": "a"}]},
        {"content": [{"type": "reasoning", "text": "why"}, {"type": "text", "text": "a"}]},
        {"content": [{"type": "reasoning", "reasoning": "why"}, {"type": "text", "text": "a"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "why"}]},
                {"type": "text", "text": "a"},
            ]
        },
    ],
)
def test_reasoning_of_every_style_has_one_key(written: dict[str, Any]) -> None:
    found = chat(record(USER, {"role": "assistant", **written}))
    assert found.messages == [USER, REASONED]
    assert found.extra == ()
    if isinstance(written["content"], str):
        rest = {key: value for key, value in written.items() if key != "content"}
        made = sharegpt({"from": "human", "value": "q"}, {"from": "gpt", "value": "a", **rest})
        assert chat(made).messages == [USER, REASONED]


WRONG_REASONING = [
    (
        {"role": "assistant", "content": "a", "thinking": "x", "reasoning_content": "y"},
        "messages[1] has two different texts of reasoning, reasoning_content and thinking: "
        "keep one",
    ),
    (
        {"role": "assistant", "content": None, "thinking": "x"},
        "messages[1] has reasoning, but no content and no tool call: there is no answer",
    ),
    (
        {"role": "assistant", "content": "", "reasoning_content": "x"},
        "messages[1] has reasoning, but no content and no tool call: there is no answer",
    ),
    (
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]},
        "messages[1] has reasoning, but no content and no tool call: there is no answer",
    ),
    (
        {"role": "user", "content": "b", "reasoning": "x"},
        "messages[1].reasoning: only assistant messages have reasoning",
    ),
    (
        {"role": "assistant", "content": "a", "reasoning": {"effort": "high"}},
        "messages[1].reasoning is an object, expected a string",
    ),
    (
        {"role": "assistant", "content": "a", "thinking": [{"type": "redacted_thinking"}]},
        'messages[1].thinking[0] is "redacted_thinking"; only text is supported',
    ),
]


@pytest.mark.parametrize(("message", "expected"), WRONG_REASONING)
def test_wrong_reasoning_is_refused_clearly(message: dict[str, Any], expected: str) -> None:
    assert problem(record(USER, message, ANSWER)) == expected


def test_reasoning_counts_in_the_checks() -> None:
    rows = [record(USER, {**REASONED, "reasoning_content": f"why {n}"}) for n in range(3)]
    inspection = inspect([reader(b"\n".join([*rows, rows[0]]))])
    [copies] = [one for one in inspection.remarks if one.check == "duplicates"]
    assert copies.count == 1


WEIGHTS = [(0, 0), (1, 1), (0.0, 0), (1.0, 1), ("0", 0), ("1", 1), (False, 0), (True, 1)]


@pytest.mark.parametrize(("written", "weight"), WEIGHTS)
def test_a_weight_is_read_in_every_form(written: Any, weight: int) -> None:
    last = {"role": "assistant", "content": "b"}
    found = chat(record(USER, {**ANSWER, "weight": written}, USER, last))
    assert found.messages[1] == {**ANSWER, "weight": weight}
    made = sharegpt(
        {"from": "human", "value": "q", "weight": 0},
        {"from": "gpt", "value": "a", "weight": written},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "b"},
    )
    assert chat(made).messages == found.messages


def test_the_weights_of_other_messages_can_only_be_zero() -> None:
    assert chat(record({**USER, "weight": 0}, ANSWER)).messages == [USER, ANSWER]
    wrong = problem(
        sharegpt({"from": "human", "value": "q", "weight": 1}, {"from": "gpt", "value": "a"})
    )
    assert wrong == "conversations[0].weight: only assistant messages have a weight"
    assert "every assistant message has weight 0" in problem(
        sharegpt({"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0})
    )


def test_either_column_can_have_messages_of_either_style() -> None:
    styles = [
        [USER, ANSWER],
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        [USER, {"from": "gpt", "value": "a", "role": None}],
    ]
    for messages in styles:
        assert chat(record(*messages)).messages == [USER, ANSWER]
        assert chat(sharegpt(*messages)).messages == [USER, ANSWER]
    called = {"role": "assistant", "tool_calls": [call("f", "{}")]}
    assert chat(sharegpt(USER, called)).messages == chat(record(USER, called)).messages
    assert "messages[0].role is null" in problem(record({"content": "a"}))
    assert "conversations[0].from is null" in problem(sharegpt({"value": "a"}))
    assert "messages[0] is a string, expected an object" in problem(record("a"))


def test_an_object_of_lists_is_a_chat() -> None:
    columns = {"role": ["user", "assistant"], "content": ["q", "a"], "weight": [None, 1]}
    expected = [USER, {**ANSWER, "weight": 1}]
    assert chat(json.dumps({"messages": columns}).encode()).messages == expected
    wrong = problem(json.dumps({"messages": {**columns, "weight": [1]}}).encode())
    assert wrong == "messages is an object, expected an array"


FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    "tools",
    [
        [TOOL],
        json.dumps([TOOL]),
        [json.dumps(TOOL)],
        [FUNCTION],
        json.dumps([FUNCTION]),
        [{"type": "function", **FUNCTION}],
        [{"function": FUNCTION}],
        [{**TOOL, "strict": None}],
    ],
)
def test_tools_of_every_style_have_one_form(tools: Any) -> None:
    assert chat(record(USER, ANSWER, tools=tools)).tools == [TOOL]
    made = sharegpt({"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, tools=tools)
    assert chat(made).tools == [TOOL]


@pytest.mark.parametrize("tools", [None, "", [], "[]"])
def test_no_tools_are_no_tools(tools: Any) -> None:
    assert chat(record(USER, ANSWER, tools=tools)).tools is None
    assert chat(record(USER, ANSWER, tools=tools, functions=[FUNCTION])).tools == [TOOL]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ("[", "tools is a text, but not a JSON array"),
        ({"a": 1}, "tools is an object, expected an array"),
        ([5], "tools[0] is a number, expected an object"),
        ([{"type": "web_search"}], "tools[0] is no function, expected"),
        ([{"description": "d"}], "tools[0] is no function, expected"),
        (
            "[" * 200 + "]" * 200,
            "tools is a text, but not a JSON array (nested deeper than 64 levels)",
        ),
        ('[{"name": "f", "maximum": 1e999}]', "tools[0] holds a number that is too large"),
        ([{**FUNCTION, "description": "\ud800"}], "half of a surrogate pair"),
    ],
)
def test_wrong_tools_are_refused_clearly(tools: Any, expected: str) -> None:
    assert expected in problem(record(USER, ANSWER, tools=tools))


def test_a_large_number_in_a_tool_can_be_written_again() -> None:
    from finetune_data.rewrite.rewriting import to_line

    tools = [{**FUNCTION, "parameters": {"maximum": 10**30, "minimum": -(2**63)}}]
    found = chat(record(USER, ANSWER, tools=tools))
    again = chat(to_line(found))
    assert again.tools == found.tools
    assert found.tools is not None
    assert found.tools[0]["function"]["parameters"] == {"maximum": 1e30, "minimum": -(2**63)}


CALLS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({"tool_calls": [call("f", '{"x": 1}', id="c1")]}, [call("f", '{"x": 1}', id="c1")]),
    ({"tool_calls": [call("f", '{"x":1}')]}, [call("f", '{"x":1}')]),
    (
        {"tool_calls": [call("f", {"x": 1, "y": [True, None]})]},
        [call("f", '{"x": 1, "y": [true, null]}')],
    ),  # type: ignore[arg-type]
    ({"tool_calls": [call("f", {"ü": "ß"})]}, [call("f", '{"ü": "ß"}')]),  # type: ignore[arg-type]
    ({"tool_calls": [call("f", {})]}, [call("f", "{}")]),  # type: ignore[arg-type]
    ({"tool_calls": [call("f", "")]}, [call("f", "{}")]),
    ({"tool_calls": [{"function": {"name": "f"}}]}, [call("f", "{}")]),
    ({"tool_calls": [{"name": "f", "arguments": {"x": 1}}]}, [call("f", '{"x": 1}')]),
    ({"tool_calls": [call("f", "{}", id=7)]}, [call("f", "{}", id="7")]),
    ({"tool_calls": json.dumps([call("f", "{}")])}, [call("f", "{}")]),
    ({"function_call": {"name": "f", "arguments": {"x": 1}}}, [call("f", '{"x": 1}')]),
]


@pytest.mark.parametrize(("written", "calls"), CALLS)
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_calls_of_every_style_have_one_form(
    written: dict[str, Any], calls: list[Any], content: dict[str, Any]
) -> None:
    message = {"role": "assistant", **content, **written, "refusal": None, "audio": None}
    found = chat(record(USER, message))
    assert found.messages[1] == {"role": "assistant", "content": "", "tool_calls": calls}
    assert found.extra == ()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            {"tool_calls": [call("f", "{")]},
            "messages[1].tool_calls[0].function.arguments is not valid JSON",
        ),
        ({"tool_calls": [call("f", 5)]}, "arguments is a number, expected an object or its JSON"),  # type: ignore[arg-type]
        ({"tool_calls": [call("f", [1])]}, "arguments is an array, expected an object or its JSON"),  # type: ignore[arg-type]
        (
            {"tool_calls": [call("f", '{"x": "\\ud800"}')]},
            "arguments holds half of a surrogate pair",
        ),
        ({"tool_calls": [call("f", '{"x": 1, "x": 2}')]}, "arguments is not valid JSON"),
        ({"tool_calls": [{"type": "custom", "custom": {}}]}, 'tool_calls[0].type is "custom"'),
        (
            {"tool_calls": [{"type": "function"}]},
            "tool_calls[0].function is null, expected an object",
        ),
        ({"tool_calls": ["x"]}, "tool_calls[0] is a text, but not a JSON object"),
        ({"tool_calls": [call("f", "{}")], "function_call": {"name": "g"}}, "keep one"),
    ],
)
def test_wrong_calls_are_refused_clearly(written: dict[str, Any], expected: str) -> None:
    assert expected in problem(record(USER, {"role": "assistant", "content": None, **written}))


def test_the_calls_of_llama_factory_are_calls() -> None:
    found = chat(
        sharegpt(
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "5"},
            {"from": "gpt", "value": "done"},
            tools=json.dumps([FUNCTION]),
            system="be kind",
        )
    )
    assert found == Conversation(
        1,
        [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call("f", '{"x": 1}')]},
            {"role": "tool", "content": "5"},
            {"role": "assistant", "content": "done"},
        ],
        [TOOL],
    )


def test_parallel_calls_of_llama_factory_are_one_message() -> None:
    calls = [{"name": "f", "arguments": {"x": n}} for n in range(2)]
    joined = [call("f", '{"x": 0}'), call("f", '{"x": 1}')]
    tail = {"from": "observation", "value": "5"}
    for written in (
        [{"from": "function_call", "value": json.dumps(one)} for one in calls],
        [{"from": "function_call", "value": json.dumps(calls)}],
        [{"from": "tool_call", "value": calls}],
    ):
        found = chat(sharegpt({"from": "human", "value": "q"}, *written, tail))
        assert [message["role"] for message in found.messages] == ["user", "assistant", "tool"]
        assert found.messages[1]["tool_calls"] == joined
    apart = [
        {"from": "function_call", "value": json.dumps(one), "weight": weight}
        for weight, one in enumerate(calls)
    ]
    weights = [message.get("weight") for message in chat(sharegpt(*apart)).messages]
    assert weights == [0, 1]


@pytest.mark.parametrize("value", ["call f", "5", "[]", "[1]", 5, None])
def test_a_wrong_call_of_llama_factory_is_refused(value: Any) -> None:
    found = problem(
        sharegpt({"from": "human", "value": "q"}, {"from": "function_call", "value": value})
    )
    assert found.startswith("conversations[1].value is ")


def test_unread_keys_of_messages_are_named_and_empty_ones_are_not() -> None:
    found = chat(
        record(
            {**USER, "audio": None, "annotations": [], "timestamp": 5},
            {
                **ANSWER,
                "refusal": "no",
                "tool_calls": [
                    {**call("f", "{}"), "index": 0, "function": {"name": "f", "parsed": {"a": 1}}}
                ],
            },
            {"role": "tool", "content": [{"type": "text", "text": "5", "cache_control": {"a": 1}}]},
            parallel_tool_calls=False,
            id=None,
        )
    )
    assert found.extra == (
        "parallel_tool_calls",
        "messages[].timestamp",
        "messages[].refusal",
        "messages[].tool_calls[].index",
        "messages[].tool_calls[].function.parsed",
        "messages[].content[].cache_control",
    )
    made = chat(sharegpt({"from": "human", "value": "q", "id": 3}, {"from": "gpt", "value": "a"}))
    assert made.extra == ("conversations[].id",)


def test_keys_of_later_lines_are_described_too() -> None:
    lines = [record(USER, ANSWER), record(USER, {**ANSWER, "refusal": "no"}, source="x")]
    made = reader(b"\n".join(lines))
    list(made.batches())
    assert made.description.ignored == ("source", "messages[].refusal")
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "c", "note": "x"}]
    made = reader("\n".join(map(json.dumps, rows)).encode())
    list(made.batches())
    assert made.description.ignored == ("note",)


def test_a_system_column_is_the_first_message() -> None:
    system = {"role": "system", "content": "be kind"}
    assert chat(record(USER, ANSWER, system="be kind")).messages == [system, USER, ANSWER]
    assert chat(record(system, USER, ANSWER, system="be kind")).messages == [system, USER, ANSWER]
    assert chat(record(USER, ANSWER, system="")).messages == [USER, ANSWER]
    wrong = problem(record(system, USER, ANSWER, system="be rude"))
    assert wrong == "the chat has two different system messages, one in system"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": None, "refusal": "I will not."}, "messages[1] has a refusal, but no content"),
        ({"content": None, "audio": {"id": "a"}}, "messages[1] has audio, but no content"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, 'content[0] is "refusal"; only text'),
        ({"content": [{"type": "input_audio"}]}, 'content[0] is "input_audio"; only text'),
        ({"content": [{"type": "image_url", "image_url": {}}]}, 'is "image_url"; only text'),
    ],
)
def test_what_is_no_text_is_refused_clearly(message: dict[str, Any], expected: str) -> None:
    assert expected in problem(record(USER, {"role": "assistant", **message}))


def test_a_developer_message_and_labels_as_numbers_are_read() -> None:
    developer = {"role": "developer", "content": "be kind"}
    found = chat(record(developer, USER, {"role": "assistant", "content": 1}))
    assert found.messages == [developer, USER, {"role": "assistant", "content": "1"}]
