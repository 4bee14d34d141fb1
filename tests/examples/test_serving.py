"""examples/serving: manifests against schemas, clients against a real server with a real model.

`transformers serve` is always available and has the same protocol as vLLM and KServe. The tests use
vLLM if the environment variable VLLM names it or if it is on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.layout import MANIFEST
from tests.chart.conftest import program
from tests.chart.schemas import swagger_file, write_schemas
from tests.support.kubectl import until
from tests.support.tiny_model import make_tiny_model

SERVING = Path(__file__).parents[2] / "examples" / "serving"
PROMPT = "fox 12 ->"
SECRET = "finetune-s3"  # the chart's default


def strict(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "additionalProperties": False}


TEXT = {"type": "string"}
AMOUNTS = {"type": "object", "additionalProperties": TEXT}
# the fields of serving.kserve.io/v1beta1 (KServe 0.21) that the example sets
INFERENCE_SERVICE = strict(
    apiVersion={"const": "serving.kserve.io/v1beta1"},
    kind={"const": "InferenceService"},
    metadata=strict(name=TEXT),
    spec=strict(
        predictor=strict(
            serviceAccountName=TEXT,
            minReplicas={"type": "integer"},
            model=strict(
                modelFormat=strict(name=TEXT),
                storageUri={"type": "string", "pattern": "^s3://"},
                args={"type": "array", "items": TEXT},
                resources=strict(requests=AMOUNTS, limits=AMOUNTS),
            ),
        )
    ),
)


@pytest.mark.parametrize("name", ["vllm.yaml", "kserve.yaml"])
def test_the_manifests_are_what_an_api_server_takes(name: str, tmp_path: Path) -> None:
    swagger = swagger_file()
    if swagger is None:
        pytest.skip("no Kubernetes module in Go's cache: `python3 -m devcluster build` fetches it")
    location = write_schemas(swagger, tmp_path)
    (tmp_path / "inferenceservice-serving-v1beta1.json").write_text(json.dumps(INFERENCE_SERVICE))
    options = ("-strict", "-summary", "-schema-location", location)
    ran = subprocess.run(
        [program("kubeconform"), *options, str(SERVING / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Valid: 2, Invalid: 0, Errors: 0, Skipped: 0" in ran.stdout


def test_vllm_serves_the_folder_that_was_fetched_with_the_namespaces_secret() -> None:
    deployment = next(yaml.safe_load_all((SERVING / "vllm.yaml").read_text()))
    pod = deployment["spec"]["template"]["spec"]
    (fetch,), (serve,) = pod["initContainers"], pod["containers"]
    assert [item["secretRef"]["name"] for item in fetch["envFrom"]] == [SECRET]
    assert fetch["volumeMounts"][0] == {"name": "model", "mountPath": serve["command"][-1]}
    assert MANIFEST in fetch["args"][0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden=128)  # heads as vLLM wants them


@pytest.fixture(scope="module")
def expected(model: Path) -> str:
    """The completion by `finetune complete` in its own process."""
    return output_of(
        *(sys.executable, "-m", "finetune_cli", "complete", str(model), "-p", PROMPT),
        *("--temperature", "0", "--max-tokens", "16", "--cpu"),
    )


def output_of(*command: str, **environment: str) -> str:
    ran = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_transformers_alone_says_the_same(model: Path, expected: str) -> None:
    assert len(expected) > 8
    assert output_of(sys.executable, str(SERVING / "local.py"), str(model), PROMPT) == expected


def transformers_server() -> list[str]:
    if missing := [name for name in ("fastapi", "uvicorn", "openai") if find_spec(name) is None]:
        pytest.skip(f"no {', '.join(missing)}: the extras of `transformers serve`")
    entry = "from transformers.cli.transformers import app; app()"
    return [sys.executable, "-c", entry, "serve", "--device", "cpu"]


def vllm_server() -> list[str]:
    program = os.environ.get("VLLM") or shutil.which("vllm")
    if program is None:
        pytest.skip("no vLLM on this machine")
    return [program, "serve", "--host", "127.0.0.1", "--gpu-memory-utilization", "0.2"]


@pytest.fixture(scope="module", params=[transformers_server, vllm_server])
def server(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    command: list[str] = request.param()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    process = subprocess.Popen(
        [*command, str(model), "--port", str(port)],
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        until(is_ready, 300, log.read_text)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize(
    "client", [("sh", "complete.sh"), (sys.executable, "complete.py"), ("node", "complete.mjs")]
)
def test_clients_get_the_completion_that_the_command_line_gives(
    server: str, model: Path, expected: str, client: tuple[str, str]
) -> None:
    if shutil.which(client[0]) is None:
        pytest.skip(f"no {client[0]} on this machine")
    found = output_of(client[0], str(SERVING / client[1]), str(model), PROMPT, BASE_URL=server)
    if client[1] == "complete.sh":
        answer = json.loads(found)
        found = f"{answer['choices'][0]['text']}\n"
        assert answer["usage"]["completion_tokens"] > 0
    assert found == expected
