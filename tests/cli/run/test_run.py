"""`finetune run` with a manifest, files, and a model on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.entry import ENTRY
from tests.support.local_files import write_finetune, write_models, write_rows
from tests.support.tiny_model import make_word_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_word_model(tmp_path_factory.mktemp("model"))


def write(folder: Path, base: Path, **spec: Any) -> None:
    """A manifest, a list of models and data, side by side."""
    rows = [
        {"prompt": f"the fox {n} ->", "completion": " yes" if n % 2 else " no"} for n in range(48)
    ]
    write_rows(folder / "train.jsonl", rows[:40])
    write_rows(folder / "valid.jsonl", rows[40:])
    write_models(folder, base)
    usual = {"nEpochs": 8, "batchSize": 4, "learningRate": 0.003}
    write_finetune(folder, **{"validationFile": "valid.jsonl", "hyperparameters": usual, **spec})


def start(folder: Path, output: str = "out") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", ENTRY, "run", "-f", "finetune.yaml", "--cpu"]
    return subprocess.Popen(
        [*command, "--models", "models.yaml", "-o", output],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, output: str = "out") -> tuple[int, str]:
    process = start(folder, output)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def results(folder: Path, output: str = "out") -> bytes:
    (path,) = (folder / output).glob("local/tone-*/results.csv")
    return path.read_bytes()


def test_it_trains_stops_at_ctrl_c_and_continues_with_the_same_numbers(
    model: Path, tmp_path: Path
) -> None:
    """Two processes, as two pods without GPUs would be."""
    write(tmp_path, model, resources={"nodes": 2, "gpusPerNode": 0})
    code, text = run(tmp_path, "whole")
    assert code == 0, text
    assert "already trained" not in text
    assert "Fine-tune succeeded: tiny:ft-local-" in text
    (published,) = (tmp_path / "whole").glob("local/tone-*/model")
    assert {"config.json", "model.safetensors", "manifest.json"} <= {
        path.name for path in published.iterdir()
    }
    trained = json.loads((published.parent / "manifest.json").read_text())
    assert (trained["nodes"], trained["processesPerNode"]) == (2, 1)
    assert not list((tmp_path / "whole").glob(".work-*"))

    process = start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step "):
            break
    process.send_signal(signal.SIGINT)
    told = process.stdout.read()
    assert process.wait(120) == 130, told
    assert "to continue from the checkpoint" in told
    code, text = run(tmp_path)
    assert code == 0, text
    assert "resumed from the checkpoint of step " in text
    assert results(tmp_path) == results(tmp_path, "whole")

    begin = time.monotonic()
    code, text = run(tmp_path)
    assert code == 0, text
    assert "This manifest was already trained; its model is in out/local/tone-" in text
    assert "progress: http" not in text
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"trainingFile": "nothing.jsonl"}, 2, "there is no file nothing.jsonl"),
        ({"model": "gpt-9"}, 2, "unknown model 'gpt-9'"),
        ({"suffixx": "a"}, 2, "spec.suffixx is an unknown field, did you mean suffix?"),
        ({"trainingFile": "broken.jsonl"}, 65, "line 2"),
        ({"dryRun": True}, 0, "Nothing was trained"),
        (
            {
                "trainingFile": None,
                "trainingFiles": [
                    {"uri": "train.jsonl", "weight": 2},
                    {"uri": "valid.jsonl", "weight": 1},
                ],
                "validationFile": None,
                "dryRun": True,
            },
            0,
            "valid.jsonl (8 examples, weight 1, 20 in an epoch)\n60 examples,",
        ),
    ],
)
def test_an_invalid_manifest_is_a_sentence(
    model: Path, tmp_path: Path, spec: dict[str, Any], code: int, words: str
) -> None:
    write(tmp_path, model, **spec)
    good = json.dumps({"prompt": "a ->", "completion": " b"})
    (tmp_path / "broken.jsonl").write_text(f'{good}\n{{"prompt": "x"\n')
    found, text = run(tmp_path)
    assert found == code, text
    assert words in text
    assert "Traceback" not in text


@pytest.mark.parametrize("resources", [{"memory": "8Gi"}, {"nodes": 64, "gpusPerNode": 8}])
def test_only_requested_resources_are_reported_as_ignored(
    model: Path, tmp_path: Path, resources: dict[str, Any]
) -> None:
    write(tmp_path, model, dryRun=True, resources=resources)
    code, text = run(tmp_path)
    assert code == 0, text
    assert ("spec.resources applies to clusters" in text) == ("nodes" in resources)
