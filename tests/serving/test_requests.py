"""Bodies of any kind are parsed or refused by name, and never crash the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_serving.wire.requests import WITHOUT_EFFECT, Endpoint, parse_request
from finetune_web.problems import Problem
from tests.serving.server import Server

NAMES = (
    *("model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature"),
    *("top_p", "n", "best_of", "stream", "stream_options", "logprobs", "top_logprobs", "stop"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "seed", "echo", "user", "other"),
    *WITHOUT_EFFECT,
)
TEXTS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS | st.sampled_from(["role", "content", "type", "text"]), inner)
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": VALUES},
        optional={"tool_calls": VALUES, "name": VALUES},
    ),
    max_size=2,
)
PLAUSIBLE = st.fixed_dictionaries(
    {"model": st.sampled_from(["tiny", "plain", "tiny", "no"])},
    optional={
        "prompt": TEXTS | st.lists(st.integers(-1, 60), max_size=3) | st.lists(TEXTS, max_size=2),
        "messages": MESSAGES,
        "max_tokens": st.integers(-1, 3),
        "n": st.integers(0, 2),
        "best_of": st.integers(0, 3),
        "temperature": st.floats(0, 3),
        "top_p": st.floats(0, 1),
        "logprobs": st.integers(-1, 6) | st.booleans(),
        "echo": st.booleans(),
        "stop": TEXTS | st.lists(TEXTS, max_size=3),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, 50).map(str), st.floats(-100, 100)),
    },
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)


@given(BODIES | st.builds(lambda a, b: {**a, **b}, PLAUSIBLE, BODIES), st.sampled_from([*Endpoint]))
def test_a_body_is_parsed_or_refused_with_a_sentence(body: Any, endpoint: Endpoint) -> None:
    try:
        request = parse_request(body, endpoint)
    except Problem as problem:
        assert problem.status in {400, 404}
        assert problem.message.endswith((".", "?", ")")), problem.message
        return
    assert request.samples >= request.choices >= 1
    assert set(body) <= {*NAMES} - {"other"} or body["other"] is None


@settings(max_examples=30, deadline=None)
@given(body=PLAUSIBLE, endpoint=st.sampled_from([*Endpoint]))
def test_every_answer_of_the_server_is_2xx_or_an_envelope(
    server: Server, body: Any, endpoint: Endpoint
) -> None:
    status, answer, _ = server.post(body, endpoint)
    if status == 200:
        assert len(answer["choices"]) % body.get("n", 1) == 0
        return
    assert status in {400, 404}, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"\xff", b'{"model": NaN}', b'{"model": "\\ud800"}', b"[" * 5000],
)
def test_what_is_no_json_object_is_refused(server: Server, body: bytes) -> None:
    status, answer, _ = server.post(body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    status, answer, _ = server.post({"prompt": "a" * (17 * 2**20)})
    assert (status, answer["error"]["code"]) == (413, "bad_request")


def test_an_object_of_the_same_value_but_another_type_is_refused() -> None:
    body = {"model": "m", "prompt": "a", "store": 0}
    with pytest.raises(Problem, match="'store'"):
        parse_request(body, Endpoint.COMPLETIONS)
