"""What the answers of servers mean, and events that arrive in blocks of any size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.text.sanitizing import sanitize
from finetune_gateway.wire.completions.answers import (
    BackendLoads,
    Refusal,
    Usage,
    is_error,
    is_usage_only,
    read_refusal,
    refused,
    renamed,
    usage_of,
)
from finetune_gateway.wire.completions.event_parts import EventReader


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"error":{"message":"m","type":"t","param":"n","code":"c_1"}}',
            Refusal("m", "c_1", "n"),
        ),
        (b'{"error":{"message":"m","param":null,"code":400}}', Refusal("m")),
        (b'{"object":"error","message":"m","code":400}', Refusal("m")),
        (b'{"error":"m"}', Refusal("m")),
        (b'{"detail":"m"}', Refusal("m")),
        (b'{"detail":[{"msg":"a"},{"msg":"b"},{"x":1},2]}', Refusal("a; b")),
        (b'"m"', Refusal("m")),
        (b"m\n  m", Refusal("m m")),
        (b"\xff", Refusal("\ufffd")),
        (b"<!DOCTYPE html><p>", Refusal("")),
        (b"[1]", Refusal("")),
        (b"", Refusal("")),
        (b'{"error":{"message":["x"],"code":"A B","param":3}}', Refusal("")),
    ],
)
def test_the_error_of_a_server_is_read_in_each_form(body: bytes, expected: Refusal) -> None:
    assert read_refusal(body) == expected


def test_the_message_of_a_server_is_one_line_of_limited_length() -> None:
    found = read_refusal(b'{"error": {"message": "' + b"a\\u001b[2J\\n" * 1000 + b'"}}')
    assert len(found.message) <= 1003
    assert sanitize(found.message) == found.message


@given(st.binary(max_size=200), st.integers(100, 599), st.none() | st.text(max_size=8))
def test_every_answer_is_a_problem_that_is_no_500(
    body: bytes, status: int, retry_after: str | None
) -> None:
    try:
        found = refused(status, read_refusal(body), "The server", retry_after)
    except BackendLoads:
        assert status in {503, 429}
    else:
        assert found.status in {400, 429, 502, 503}
        assert sanitize(found.message) == found.message
        assert found.retry_after is None or 0 <= found.retry_after <= 120


@pytest.mark.parametrize(
    ("status", "message", "loads"),
    [
        (503, "", True),
        (503, "Loading model", True),
        (503, "no healthy upstream", True),
        (503, "The request queue is full", False),
        (503, "Service overloaded", False),
        (429, "Model is overloaded", False),
        (429, "", False),
        (429, "The model is loading", True),
        (429, "uploading is limited", False),
    ],
)
def test_a_server_that_loads_differs_from_one_with_too_much_work(
    status: int, message: str, loads: bool
) -> None:
    if loads:
        with pytest.raises(BackendLoads):
            refused(status, Refusal(message), "The server")
    else:
        assert refused(status, Refusal(message), "The server").status == status


@pytest.mark.parametrize(
    ("message", "has_none"),
    [
        ("As of v4.44, default chat template is no longer allowed", True),
        ("Cannot use it because tokenizer.chat_template is not set", True),
        ("this model does not have a chat template", True),
        ("Error in the chat template: roles must alternate", False),
        ("chat_template_kwargs must be a dictionary", False),
    ],
)
def test_a_model_without_a_template_differs_from_an_error_of_one(
    message: str, has_none: bool
) -> None:
    found = refused(400, Refusal(message), "The server")
    assert ("Use /v1/completions" in found.message) is has_none


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 5}}, Usage(3, 5)),
        ({"usage": {"prompt_tokens": -3, "completion_tokens": "5"}}, Usage(0, 0)),
        ({"usage": {"prompt_tokens": 10**30}}, Usage(0, 0)),
        ({"usage": None}, None),
        ({}, None),
    ],
)
def test_the_usage_of_a_server_is_not_trusted(answer: dict[str, Any], expected: Usage) -> None:
    assert usage_of(answer) == expected


def test_a_part_has_the_name_of_the_request_only_if_it_has_one() -> None:
    assert renamed({"model": "x", "a": 1}, "m") == {"model": "m", "a": 1}
    assert renamed({"a": 1}, "m") == {"a": 1}


def test_kinds_of_parts() -> None:
    assert is_usage_only({"choices": [], "usage": {}})
    assert not is_usage_only({"choices": [], "usage": None})
    assert not is_usage_only({"choices": [{}], "usage": {}})
    assert is_error({"error": {"message": "a"}})
    assert not is_error({"error": None, "choices": []})
    assert is_error({"object": "error"})


@given(st.lists(st.binary(min_size=1).filter(lambda it: not {10, 13} & set(it))), st.data())
def test_events_do_not_depend_on_the_blocks(events: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(
        (b": keep-alive\n\n" if data.draw(st.booleans()) else b"")
        + data.draw(
            st.sampled_from([b"data: " + it + b"\n\n", b"id: 1\r\ndata: " + it + b"\r\n\r\n"])
        )
        for it in events
    )
    reader, found = EventReader(), []
    while stream:
        size = data.draw(st.integers(1, 20))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == events


def test_an_event_without_end_is_bounded() -> None:
    reader = EventReader(most_bytes=100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        for _ in range(10):
            reader.feed(b"data: aaaaaaaaaaaaaaaaaaa\n")
    with pytest.raises(ValueError, match="more than 100 bytes"):
        EventReader(most_bytes=100).feed(b"x" * 101)
