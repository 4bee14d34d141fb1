"""One manifest with `finetune run -f` on this machine and with `kubectl apply -f` on a cluster.

It is the demo's classify.yaml with its data, tokenizer, and random base model. Two pods and two
processes sum in the same order.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.demo import base_model, dataset, tokenizer
from tests.e2e.conftest import Cluster, Team
from tests.support.cases import LONG

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), LONG]

DEMO = Path(__file__).parents[2] / "examples" / "demo"
TOLERANCE = 1e-5  # of every measured cell
RATE = 0.001


@pytest.fixture(scope="module")
def demo(cluster: Cluster, team: Team, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A namespace whose catalog has the demo's base model, with its files and data in S3."""
    folder = tmp_path_factory.mktemp("demo")
    made = Team(cluster, f"{team.name}-demo", folder)
    made.create()
    data = dataset.build_dataset()
    tokenizer.write_tokenizer(dataset.seen_texts(data), folder / "ada")
    base_model.write_base_model(folder / "ada")
    for path in (folder / "ada").iterdir():
        cluster.s3.upload_file(str(path), cluster.bucket, f"{made.prefix}/ada/{path.name}")
    made.put("train.jsonl", dataset.jsonl(data.training))
    made.put("valid.jsonl", dataset.jsonl(data.validation))
    made.install("--set", "crds.install=false", "--set-json", f"models={json.dumps([ada(made)])}")
    yield made
    made.remove()


def ada(team: Team) -> dict[str, Any]:
    """The base model for the chart's value `models` and for `finetune run --models`."""
    return {
        "name": "ada",
        "uri": f"s3://{team.cluster.bucket}/{team.prefix}/ada",
        "pretrainingLearningRate": RATE,
        "contextLength": tokenizer.CONTEXT,
    }


def write(team: Team, folder: Path) -> Path:
    text = (DEMO / "classify.yaml").read_text(encoding="utf-8")
    path = folder / "classify.yaml"
    path.write_text(text.replace("s3://finetune/demo", f"s3://{team.cluster.bucket}/{team.prefix}"))
    (folder / "models.yaml").write_text(yaml.safe_dump([ada(team)]))
    return path


def run(team: Team, path: Path) -> str:
    """The results.csv of `finetune run`, on the CPU like the pods of the cluster."""
    folder = path.parent
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "finetune_cli", "run", "-f", str(path), "--cpu"),
            *("--models", "models.yaml", "-o", "out"),
        ],
        cwd=folder,
        env={
            **os.environ,
            **team.cluster.place.s3,
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    (results,) = (folder / "out").glob("local/classify-*/results.csv")
    return results.read_text()


def apply(team: Team, path: Path) -> str:
    """The results.csv of `kubectl apply`, with two pods."""
    team.kubectl.apply_file(path)
    status = team.kubectl.wait_state("classify", "succeeded", "failed", seconds=900)
    assert status["state"] == "succeeded", json.dumps(status, indent=1)
    assert len(status["attempts"]) == 1
    return team.read(next(uri for uri in status["resultFiles"] if uri.endswith("results.csv")))


def test_the_same_file_gives_the_same_results(demo: Team, tmp_path: Path) -> None:
    path = write(demo, tmp_path)
    here, there = (
        list(csv.DictReader(io.StringIO(text))) for text in (run(demo, path), apply(demo, path))
    )
    assert list(here[0]) == list(there[0])
    assert len(here) == len(there) > 280
    assert float(here[-1]["training_loss"]) < 0.5 * float(here[0]["training_loss"])
    furthest = {
        name: max(abs(a - b) for a, b in pairs)
        for name in here[0]
        if (pairs := [(float(a[name]), float(b[name])) for a, b in zip(here, there, strict=True)
                      if (a[name], b[name]) != ("", "")])
    }  # fmt: skip
    print(json.dumps(furthest))
    assert {name for name in furthest if name.startswith("validation")}
    assert max(furthest.values()) <= TOLERANCE, furthest
