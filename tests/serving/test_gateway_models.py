"""Models whose addresses the gateway sends, from a real S3 server."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError, OpenAI

from finetune_api.uris import S3Uri
from finetune_serving.models.addresses import DIGEST_HEADER, URI_HEADER
from finetune_serving.settings import Settings
from finetune_storage.manifests import file_entries
from finetune_storage.s3 import Storage
from tests.data.builders import put_folder
from tests.serving.server import serving
from tests.support.tiny_model import make_tiny_model

pytestmark = pytest.mark.slow


def publish(storage: Storage, folder: Path, uri: S3Uri) -> dict[str, str]:
    """Publish the folder with a manifest; returns the headers of the gateway."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    entries = [entry.to_dict() for entry in file_entries(folder, names)]
    manifest = json.dumps({"kind": "model", "files": entries}).encode()
    put_folder(storage, folder, uri)
    storage.write_bytes(uri.child("manifest.json"), manifest)
    return {URI_HEADER: str(uri), DIGEST_HEADER: hashlib.sha256(manifest).hexdigest()}


def test_the_gateway_names_models_and_two_of_three_stay(
    aws: object, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the gateway\n")
    root = S3Uri(bucket, "finetunes/ml")
    settings = Settings(
        models_below=(root,),
        trusts_gateway=True,
        secret_file=secret,
        cache=tmp_path / "cache",
        cpu=True,
    )
    headers: dict[str, dict[str, str]] = {}
    for seed, name in enumerate(("a", "b", "c")):
        folder = make_tiny_model(tmp_path / name, hidden=16, layers=1, seed=seed)
        headers[name] = publish(storage, folder, root.child(name, "model"))
    with serving(settings) as server:
        client = server.client("of the gateway")

        def scores(name: str) -> list[float]:
            """The log probabilities of three tokens, which tell the models apart."""
            answer = client.completions.create(
                model=name,
                prompt="abc",
                max_tokens=3,
                temperature=0,
                logprobs=0,
                extra_headers=headers[name],
            )
            found = answer.choices[0].logprobs
            assert answer.model == name and found is not None and found.token_logprobs
            return found.token_logprobs

        texts = {name: scores(name) for name in ("a", "b", "c")}
        assert len({found[0] for found in texts.values()}) == 3
        assert [model.id for model in client.models.list()] == ["b", "c"]
        assert scores("a") == texts["a"]
        assert [model.id for model in client.models.list()] == ["c", "a"]
        assert len([*(tmp_path / "cache").iterdir()]) == 3
        with pytest.raises(AuthenticationError, match="no valid secret"):
            server.client("of another").models.list()
        wrong = {**headers["a"], DIGEST_HEADER: "0" * 64}
        status, answer, _ = server.post(
            {"model": "a", "prompt": "a"}, **wrong, Authorization="Bearer of the gateway"
        )
        assert (status, answer["error"]["code"]) == (503, "model_unusable")
        elsewhere = {**headers["a"], URI_HEADER: f"s3://{bucket}/other/model"}
        status, answer, _ = server.post(
            {"model": "a", "prompt": "a"}, **elsewhere, Authorization="Bearer of the gateway"
        )
        assert (status, "--models-below" in answer["error"]["message"]) == (400, True)
        secret.write_text("a new one")
        assert server.client("a new one").models.list().data


@pytest.mark.slow
def test_the_program_serves_and_ends_with_a_signal(tiny: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    flags = ("--model", f"tiny={tiny}", "--cpu", "--cache", str(tmp_path / "cache"))
    flags += ("--port", str(ports[0]), "--status-port", str(ports[1]), "--drain-seconds", "1")
    program = subprocess.Popen(
        [sys.executable, "-m", "finetune_serving", "serve", *flags],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        status = f"http://127.0.0.1:{ports[1]}"
        wait_for(f"{status}/readyz")
        client = OpenAI(base_url=f"http://127.0.0.1:{ports[0]}/v1", api_key="none", timeout=120)
        asked: dict[str, Any] = {"model": "tiny", "prompt": "abc", "seed": 1}
        assert client.completions.create(**asked).choices[0].finish_reason
        metrics = get(f"{status}/metrics")
        assert (
            'finetune_serving_requests_total{route="/v1/completions",status="200"} 1.0' in metrics
        )
        assert 'finetune_serving_tokens_total{kind="prompt"} 3.0' in metrics
        assert "finetune_serving_loaded_models 1.0" in metrics
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=60)
        assert (program.returncode, "Traceback" in errors) == (0, False), errors
    finally:
        program.kill()
        program.wait(10)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def wait_for(url: str) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            get(url)
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.2)
