"""Requests that wait: for a model that loads, for others before them, and for the end."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, OpenAI

from finetune_serving.models import loaded
from finetune_serving.models.addresses import ModelAddress
from finetune_serving.models.files import ModelFiles
from finetune_serving.models.loaded import LoadedModel
from finetune_serving.settings import Settings
from tests.serving.server import Server, serving, tiny_settings

pytestmark = pytest.mark.slow

SECONDS = 60.0
LONG: dict[str, Any] = {"prompt": "abc", "max_tokens": 50, "logit_bias": {"1": -100}}


class Gate:
    """Loads models, and generates their tokens, only while it is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads, self.tokens = threading.Event(), threading.Event()
        self.loads.set()
        self.tokens.set()
        self.followed = 0
        original: Callable[..., LoadedModel] = loaded.load

        def load(address: ModelAddress, files: ModelFiles, *, cpu: bool) -> LoadedModel:
            assert self.loads.wait(SECONDS)
            found = original(address, files, cpu=cpu)
            follow = found.model.follow

            def slow(token: int) -> Any:
                assert self.tokens.wait(SECONDS)
                self.followed += 1
                return follow(token)

            found.model.follow = slow  # type: ignore[method-assign]
            return found

        monkeypatch.setattr(loaded, "load", load)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def start(tiny: Path, tmp_path: Path, gate: Gate) -> Iterator[Callable[..., Server]]:
    """Start a server with changes of its settings."""
    with ExitStack() as stack:

        def call(**changes: Any) -> Server:
            settings: Settings = replace(tiny_settings(tmp_path, tiny=tiny), **changes)
            return stack.enter_context(serving(settings))

        yield call
        gate.loads.set()
        gate.tokens.set()


def raw_stream(server: Server, body: Any) -> tuple[http.client.HTTPConnection, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    connection.request("POST", "/v1/completions", json.dumps({"stream": True, **body}))
    return connection, connection.getresponse()


def until(check: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_request_is_held_then_409_and_the_next_one_is_answered(
    start: Callable[..., Server], gate: Gate
) -> None:
    gate.loads.clear()
    server = start(hold_seconds=0.3)
    status, answer, headers = server.post({"model": "tiny", "prompt": "a"})
    assert (status, answer["error"]["code"]) == (409, "model_loading")
    assert (headers["Retry-After"], headers["x-should-retry"]) == ("5", "true")
    gate.loads.set()
    until(lambda: bool(server.parts.pool.loaded))
    assert server.post({"model": "tiny", "prompt": "a"})[0] == 200


def test_a_stream_shows_comments_while_the_model_loads(
    start: Callable[..., Server], gate: Gate
) -> None:
    gate.loads.clear()
    server = start(keep_alive_seconds=0.1)
    connection, answer = raw_stream(server, {"model": "tiny", "prompt": "abc", "max_tokens": 2})
    assert (answer.status, answer.getheader("Content-Type")[:17]) == (200, "text/event-stream")
    assert [answer.readline() for _ in range(4)] == [b": loading\n", b"\n"] * 2
    gate.loads.set()
    rest = answer.read().decode()
    assert rest.endswith("data: [DONE]\n\n") and '"text_completion"' in rest
    connection.close()


def test_a_failed_load_is_an_error_of_the_stream_and_of_the_request(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(models={"tiny": str(tmp_path / "nowhere")})
    status, answer, headers = server.post({"model": "tiny", "prompt": "a"})
    assert (status, answer["error"]["code"]) == (503, "model_unusable")
    assert headers["x-should-retry"] == "false"
    stream = server.client().completions.create(model="tiny", prompt="a", stream=True)
    with pytest.raises(APIError, match="contains no model"):
        list(stream)


def test_a_full_queue_is_429(start: Callable[..., Server], gate: Gate) -> None:
    gate.tokens.clear()
    server = start(queue=1)
    body = {"model": "tiny", **LONG}
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(server.post, body) for _ in range(2)]
        until(lambda: sum(it.requests for it in server.parts.pool._places.values()) == 2)
        status, answer, headers = server.post(body)
        assert (status, answer["error"]["type"]) == (429, "rate_limit_error")
        assert headers["Retry-After"] == "5"
        gate.tokens.set()
        assert [future.result()[0] for future in waiting] == [200, 200]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_client_that_leaves_ends_its_generation(
    start: Callable[..., Server], gate: Gate, is_streamed: bool
) -> None:
    server = start()
    assert server.post({"model": "tiny", "prompt": "a", "max_tokens": 1})[0] == 200
    gate.tokens.clear()
    body = {"model": "tiny", "stream": is_streamed, **LONG, "n": 16}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    connection.request("POST", "/v1/completions", json.dumps(body))
    until(lambda: bool(server.parts.activity._tasks))
    time.sleep(0.2)
    connection.close()
    until(lambda: not server.parts.activity._tasks)
    gate.tokens.set()
    before = gate.followed
    assert server.post({"model": "tiny", "prompt": "a", "max_tokens": 3})[0] == 200
    assert gate.followed - before < 2 * 16


def test_the_end_of_the_server_is_an_error_within_streams(
    start: Callable[..., Server], gate: Gate
) -> None:
    server = start()
    client: OpenAI = server.client()
    assert client.completions.create(model="tiny", prompt="a").choices
    stream = client.completions.create(model="tiny", stream=True, **LONG)
    first = next(iter(stream))
    assert first.choices[0].text
    gate.tokens.clear()
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(server.run, server.parts.activity.drain(0.2))
        with pytest.raises(APIError, match="The server restarts"):
            list(stream)
        ended.result(SECONDS)
    status, answer, _ = server.post({"model": "tiny", "prompt": "a"})
    assert (status, answer["error"]["code"]) == (503, "service_unavailable")
