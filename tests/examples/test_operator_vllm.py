"""The command, the probe, and the end of a pod with vLLM, as the operator writes them.

It needs vLLM, which the environment variable VLLM names or which is on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.serving import PORT_COMPLETIONS
from finetune_operator.build.serving import DRAIN_SECONDS, FOLDER, GRACE_SECONDS
from tests.operator.test_serving import deployment_of, served
from tests.support.kubectl import until
from tests.support.tiny_model import CONTEXT, make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ID = '-ada=ft:a b"é,{x}--port=9'  # any owner may write an id
START_SECONDS, ANSWER_SECONDS = 600, 300


class Pod:
    """The main container of a served Model, as a process on this machine."""

    def __init__(self, program: str, folder: Path) -> None:
        model = served({"runtime": "vllm"}, id=ID)
        template = deployment_of({"runtime": "vllm"}, model)["spec"]["template"]
        (self._container,) = template["spec"]["containers"]
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = str(listener.getsockname()[1])
        # The tiny model has a shorter context than the golden one.
        command = [word for word in self._container["command"] if "--max-model-len" not in word]
        places = {FOLDER: str(make_tiny_model(folder / "model", hidden=128)), "vllm": program}
        variables = {item["name"]: item["value"] for item in self._container["env"]}
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [places.get(word, self._here(word)) for word in command],
            env={**os.environ, **variables, "HOME": str(folder), "PYTHONPATH": ""},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def _here(self, text: str) -> str:
        return text.replace(str(PORT_COMPLETIONS), self._port).replace("$$", "$")

    def probe(self, model: str | None = None) -> int:
        """The exit code of the startup probe. model: another id than that of the Model."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        _, *words, own = self._container["startupProbe"]["exec"]["command"]
        command = [sys.executable, *map(self._here, words), model or own]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    def stream(self, tokens: int) -> Any:
        """The open answer to a request for a completion of so many tokens."""
        fields = {"model": ID, "prompt": "fox", "stream": True, "ignore_eos": True}
        body = json.dumps({**fields, "max_tokens": tokens}).encode()
        url = f"http://127.0.0.1:{self._port}/v1/completions"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)
        return urllib.request.urlopen(request, timeout=ANSWER_SECONDS)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    program = os.environ.get("VLLM") or shutil.which("vllm")
    if program is None:
        pytest.skip("no vLLM on this machine")
    made = Pod(program, tmp_path_factory.mktemp("pod"))
    try:
        until(lambda: made.probe() == 0, START_SECONDS, made.log.read_text)
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_the_probe_fails_for_a_model_that_the_server_does_not_have(pod: Pod) -> None:
    assert pod.probe("another") == 1
    assert pod.probe() == 0


def test_a_running_completion_ends_after_sigterm(pod: Pod) -> None:
    """It is the last test: the server ends."""
    assert DRAIN_SECONDS < GRACE_SECONDS
    with pod.stream(CONTEXT // 2) as answer:
        assert answer.readline().startswith(b"data: ")
        pod.process.send_signal(signal.SIGTERM)
        rest = answer.read()
    assert rest.rstrip().endswith(b"data: [DONE]")
    assert pod.process.wait(GRACE_SECONDS) == 0
