"""The bodies of completions: what is refused, with which field, and what a server gets."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.text.sanitizing import sanitize
from finetune_gateway.wire.completions.requests import (
    EXTENSIONS,
    FIELDS,
    Endpoint,
    parse_completion,
)
from finetune_web.problems import Problem

NOTHING: frozenset[str] = frozenset()
TEXT = {"model": "m", "prompt": "a"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


def refused(body: dict[str, Any], endpoint: Endpoint = Endpoint.COMPLETIONS) -> str | None:
    """The field that is refused."""
    with pytest.raises(Problem) as found:
        parse_completion(body, endpoint).forwarded("served", NOTHING)
    assert found.value.status == 400
    assert found.value.should_retry is None
    return found.value.param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"model": ["m"]}, "model"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"n": "1"}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": False}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": {}}, "stop"),
        ({"echo": 1}, "echo"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"suffix": 1}, "suffix"),
        ({"user": 1}, "user"),
        ({"seed": 1.5}, "seed"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {"50256": -101}}, "logit_bias.50256"),
        ({"logit_bias": {"50256": None}}, "logit_bias.50256"),
        ({"messages": []}, "messages"),
        ({"temprature": 1}, "temprature"),
        ({"store": True}, "store"),
        ({"x" * 100: 1}, "x" * 64),
    ],
)
def test_a_field_that_a_completion_cannot_have_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(TEXT | fields) == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "a"}, "messages"),
        ({"messages": ["a"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "a"}, {}]}, "messages[1].role"),
        ({"messages": [{"role": 1}]}, "messages[0].role"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"prompt": "a"}, "prompt"),
        ({"echo": True}, "echo"),
        ({"n": 17}, "n"),
        ({"audio": {}}, "audio"),
    ],
)
def test_a_field_that_a_chat_cannot_have_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(CHAT | fields, Endpoint.CHAT) == param


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " a ->",
        "\n\n###\n\n",
        [1, 2, 3],
        ["a", "b"],
        [[1, 2], [3]],
        ["", "a"],
        "ü\u0000\U0001f600",
    ],
)
def test_the_prompt_is_never_changed(prompt: Any) -> None:
    given_ = {"model": "m", "prompt": copy.deepcopy(prompt), "echo": True}
    body = parse_completion(given_, Endpoint.COMPLETIONS).forwarded("served", NOTHING)
    assert body == {"model": "served", "prompt": prompt, "echo": True}


def test_messages_keep_their_nulls_and_all_fields() -> None:
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a"}]},
    ]
    body = parse_completion(CHAT | {"messages": messages}, Endpoint.CHAT)
    assert body.forwarded("m", NOTHING)["messages"] == messages


def test_nulls_are_fields_that_are_left_out() -> None:
    fields = dict.fromkeys([*FIELDS[Endpoint.COMPLETIONS], "unknown_field", *EXTENSIONS])
    body = parse_completion(fields | TEXT, Endpoint.COMPLETIONS).forwarded("served", NOTHING)
    assert body == {"model": "served", "prompt": "a"}


def test_fields_without_effect_are_not_forwarded_to_a_server_without_them() -> None:
    body = parse_completion(TEXT | {"best_of": 2, "n": 2, "suffix": ""}, Endpoint.COMPLETIONS)
    assert body.forwarded("m", NOTHING) == TEXT | {"n": 2}
    assert body.forwarded("m", frozenset({"best_of", "suffix"})) == TEXT | {
        "n": 2,
        "best_of": 2,
        "suffix": "",
    }


def test_the_request_is_not_changed_by_forwarding() -> None:
    given_ = TEXT | {"stream": True, "stream_options": {"include_usage": False}}
    body = parse_completion(given_, Endpoint.COMPLETIONS)
    first = body.forwarded("a", NOTHING)
    assert first["stream_options"] == {"include_usage": True}
    assert not body.wants_usage
    assert body.forwarded("a", NOTHING) == first
    assert given_["stream_options"] == {"include_usage": False}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(sorted({*FIELDS[Endpoint.CHAT], *FIELDS[Endpoint.COMPLETIONS], "model"}))


@given(
    st.dictionaries(names | st.text(max_size=5), json_values, max_size=8),
    st.sampled_from(Endpoint),
    st.none() | st.text(max_size=10),
)
def test_every_body_is_prepared_or_refused_with_a_field(
    body: dict[str, Any], endpoint: Endpoint, engine: str | None
) -> None:
    before = copy.deepcopy(body)
    try:
        found = parse_completion(body, endpoint, engine).forwarded("served", NOTHING)
    except Problem as problem:
        assert problem.status in {400, 404}
        assert problem.param is not None
        assert sanitize(problem.message) == problem.message
        assert len(problem.message) < 1000
    else:
        assert found["model"] == "served"
        assert None not in found.values()
        assert all(
            found[key] == value for key, value in before.items() if key in {"prompt", "messages"}
        )
    assert body == before
