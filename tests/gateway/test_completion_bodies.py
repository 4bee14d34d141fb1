"""Any body, to any of the endpoints: an answer, or an error in the envelope, and never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import ClientSession
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_gateway.wire.completions.requests import FIELDS, Endpoint
from tests.gateway.completion_gateway import TONE, gateway_to
from tests.gateway.completion_server import CompletionServer
from tests.gateway.test_completion_requests import json_values
from tests.gateway.threads import Background
from tests.support.gateway_app import AS_ANNA

pytestmark = pytest.mark.slow

PATHS = ("completions", "chat/completions", f"engines/{TONE}/completions", "engines/x/completions")
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from([TONE, "curie", "nosuch"]),
    "prompt": st.text() | st.lists(st.text(), max_size=3) | st.lists(st.integers(0, 9), max_size=3),
    "messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text()})),
    "n": st.integers(0, 3),
    "stream": st.booleans(),
    "echo": st.booleans(),
    "logprobs": st.integers(0, 5) | st.booleans(),
}
bodies = st.fixed_dictionaries(
    {},
    optional={
        **{field: json_values for endpoint in Endpoint for field in FIELDS[endpoint]},
        **{field: values | json_values for field, values in USUAL.items()},
    },
)


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background() as found:
        yield found


@pytest.fixture(scope="module")
def url(background: Background) -> str:
    it = background.enter(gateway_to(CompletionServer(models={TONE}), holdSeconds=0))
    return str(it.url)


async def send(url: str, path: str, **content: Any) -> tuple[int, str, Any, str]:

    async with (
        ClientSession() as client,
        client.post(f"{url}/{path}", headers=AS_ANNA, **content) as response,
    ):
        if response.content_type == "application/json":
            return response.status, response.content_type, await response.json(), ""
        return response.status, response.content_type, None, await response.text()


def check(status: int, kind: str, answer: Any, text: str) -> None:
    assert status in {200, 400, 404, 502, 503}, answer
    if kind == "text/event-stream":
        assert status == 200
        assert text.endswith("data: [DONE]\n\n") or 'data: {"error"' in text
    elif status == 200:
        assert answer["model"] in {TONE, "curie"}
    else:
        assert answer["error"].keys() == {"message", "type", "param", "code"}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies, path=st.sampled_from(PATHS))
def test_any_json_object_gets_an_answer_or_the_envelope(
    background: Background, url: str, body: Any, path: str
) -> None:
    check(*background.run(send(url, path, json=body)))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=60)
    | st.sampled_from(
        [b"[]", b"null", b'"a"', b"[" * 10**5, b'{"n":' + b"9" * 400 + b"}", b'{"model":"\\ud800"}']
    ),
    path=st.sampled_from(PATHS),
)
def test_any_bytes_get_the_envelope(
    background: Background, url: str, data: bytes, path: str
) -> None:
    status, _, answer, _ = background.run(send(url, path, data=data))
    assert status in {400, 404}
    assert answer["error"].keys() == {"message", "type", "param", "code"}


def test_a_body_of_5_mb_is_refused(background: Background, url: str) -> None:
    body = {"model": TONE, "prompt": "a" * 5 * 10**6}
    status, _, answer, _ = background.run(send(url, "completions", json=body))
    assert (status, answer["error"]["code"]) == (400, "body_too_large")
