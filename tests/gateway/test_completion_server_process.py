"""The gateway in front of the real process of `finetune_serving`, with a tiny model in S3."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import RunLayout
from finetune_gateway.backends.published_model import DIGEST_HEADER, URI_HEADER
from finetune_storage.s3 import Storage
from tests.gateway.completion_gateway import TONE, Gateway, add_model, gateway
from tests.serving.test_gateway_models import publish, wait_for
from tests.support.tiny_model import make_tiny_model

pytestmark = pytest.mark.slow  # it imports torch, and starts a process that does

NAME, UID = "tone", "0a1b2c3d-0000-4000-8000-000000000000"
SECRET = "of the gateway"


@dataclass
class Running:
    """A server and its model."""

    url: str  # ends in /v1
    output: str
    secret: Path
    headers: dict[str, str]  # which tell it where the model is

    @property
    def spec(self) -> dict[str, Any]:
        """Of the Model."""
        return {
            "uri": self.headers[URI_HEADER],
            "manifestSha256": self.headers[DIGEST_HEADER],
            "fineTune": {"name": NAME, "uid": UID},
        }

    @property
    def settings(self) -> dict[str, Any]:
        """Of the gateway."""
        server = {"url": self.url, "secretFile": str(self.secret)}
        return {"server": server, "output": self.output, "holdSeconds": 120}

    async def ask(self, it: Gateway, body: dict[str, Any]) -> Any:
        """The answer of the server itself."""
        headers = self.headers | {"Authorization": f"Bearer {SECRET}"}
        async with it.client.post(f"{self.url}/completions", json=body, headers=headers) as found:
            assert found.status == 200, await found.text()
            return await found.json()


@pytest.fixture
def running(aws: object, storage: Storage, bucket: str, tmp_path: Path) -> Iterator[Running]:
    output = f"s3://{bucket}/out"
    folder = make_tiny_model(tmp_path / "tiny", hidden=16, layers=1)
    headers = publish(storage, folder, RunLayout.of(output, "ml", NAME, UID).model)
    secret = tmp_path / "token"
    secret.write_text(f"{SECRET}\n")
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    flags = ["--trust-gateway", "--gateway-secret-file", str(secret), "--cpu"]
    flags += ["--models-below", f"{output}/ml", "--cache", str(tmp_path / "cache")]
    flags += ["--port", str(ports[0]), "--status-port", str(ports[1]), "--drain-seconds", "1"]
    program = subprocess.Popen(
        [sys.executable, "-m", "finetune_serving", "serve", *flags],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    try:
        wait_for(f"http://127.0.0.1:{ports[1]}/readyz")
        yield Running(f"http://127.0.0.1:{ports[0]}/v1", output, secret, headers)
    finally:
        program.kill()
        program.wait(10)


async def test_completions_are_those_of_the_server_itself(running: Running) -> None:
    body = {"model": TONE, "prompt": "abc", "max_tokens": 5, "temperature": 0, "echo": True}
    sampled = {"model": TONE, "prompt": ["a", "bc"], "seed": 3, "best_of": 3, "logprobs": 2}
    async with gateway(**running.settings) as it:
        it.cluster.objects["models"].clear()
        await add_model(it.cluster, TONE, **running.spec)
        # The first request waits for the model.
        status, first = await it.post("completions", body | {"user": None, "n": None})
        assert status == 200, first
        for asked in (body, sampled):
            status, answer = await it.post("completions", asked)
            assert (status, answer["model"]) == (200, TONE)
            own = await running.ask(it, asked)
            assert answer["choices"] == own["choices"]
            assert answer["usage"] == own["usage"]
        assert first["choices"][0]["text"].startswith("abc")
        events = await it.events("completions", body | {"stream": True})
        assert events[-1] == "data: [DONE]"
        parts = [json.loads(line.removeprefix("data: ")) for line in events[:-1]]
        text = "".join(choice["text"] for part in parts for choice in part["choices"])
        assert text == first["choices"][0]["text"]
        chat = {"model": TONE, "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
        status, answer = await it.post("chat/completions", chat)
        assert (status, answer["object"], answer["model"]) == (200, "chat.completion", TONE)
        status, answer = await it.post("completions", body | {"max_tokens": 10**6})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_model_that_is_not_what_its_model_resource_says_is_not_used(
    running: Running,
) -> None:
    body = {"model": TONE, "prompt": "abc"}
    async with gateway(**running.settings, reviewSeconds=0) as it:
        it.cluster.objects["models"].clear()
        await add_model(it.cluster, TONE, **running.spec | {"manifestSha256": "0" * 64})
        status, answer = await it.post("completions", body)
        assert (status, answer["error"]["code"]) == (503, "model_unusable")
        it.cluster.objects["models"].clear()
        foreign = running.spec | {"uri": f"{running.output}/other/tone-0a1b2c3d/model"}
        await add_model(it.cluster, TONE, **foreign)
        status, answer = await it.post("completions", body)
        assert (status, answer["error"]["code"]) == (503, "model_not_served")
        it.cluster.objects["models"].clear()
        await add_model(it.cluster, TONE, **running.spec)
        running.secret.write_text("a new one")  # which both read again
        assert (await it.post("completions", body))[0] == 200
        with pytest.raises(AssertionError, match="no valid secret"):
            await running.ask(it, body)
