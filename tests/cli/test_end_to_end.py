"""A person with nothing but the command: from a local file to the model on their disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_cli.commands.doctor.network_checks import BUNDLES
from tests.e2e.conftest import Cluster, Team, cluster, jsonl, team, tiny_model

__all__ = ["cluster", "team", "tiny_model"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_the_command_line_trains_and_downloads_a_model(
    team: Team, cluster: Cluster, home: Path
) -> None:
    (home / "train.jsonl").write_text(jsonl(64))
    (home / "valid.jsonl").write_text(jsonl(16, seed=1000))

    # The doctor reports the certificates that the environment of this machine names.
    environment = {key: value for key, value in os.environ.items() if key not in BUNDLES}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "finetune_cli", "-n", team.name, *arguments],
            env={**environment, **cluster.place.s3, "KUBECONFIG": cluster.place.kubeconfig},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    made = run(
        *("create", "tone", "-t", "train.jsonl", "-v", "valid.jsonl", "-m", "tiny"),
        *("--suffix", "cli", "--n_epochs", "2", "--batch_size", "8", "--gpus-per-node", "0"),
        *("--set", "hyperparameters.learningRate=0.01"),
        *("--upload-to", f"s3://{cluster.bucket}/{team.prefix}/uploads"),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.startswith("Created fine-tune: tone\n")
    for words in ("Fine-tune started", "Completed epoch 2/2"):
        assert made.stdout.count(words) == 1, made.stdout
    assert "Job complete! Status: succeeded" in made.stdout
    again = run("create", "-f", "-", "--dry-run", "-t", "train.jsonl")
    assert "contains 0 objects" in again.stderr
    assert "would be uploaded" not in run("create", "-t", "train.jsonl", "--dry-run").stderr

    rows = json.loads(run("results", "tone", "-o", "json").stdout)
    assert [row["step"] for row in rows] == list(range(1, 17))
    assert "training_loss" in run("results", "tone", "--plot").stdout
    log = run("logs", "tone", "--tail", "5")
    assert (log.returncode, bool(log.stdout.strip())) == (0, True), log.stderr
    assert run("logs", "tone", "--prepare").returncode == 0
    model = json.loads(run("models", "list", "-o", "json").stdout)["items"][-1]["spec"]["id"]
    assert model.startswith(f"tiny:ft-{team.name}:cli-")
    pulled = run("models", "pull", model, "mine")
    assert pulled.returncode == 0, pulled.stderr
    assert (home / "mine" / "model.safetensors").stat().st_size > 0
    tokens = run("tokenize", "-m", "tone", "abc", "-o", "json")
    assert json.loads(tokens.stdout)["count"] > 0, tokens.stderr
    doctor = {
        item["check"]: item["level"] for item in json.loads(run("doctor", "-o", "json").stdout)
    }
    assert doctor == {
        "cluster": "ok",
        "CRDs": "ok",
        "permissions": "ok",
        "operator": "ok",
        "S3 credentials": "ok",
        "GPUs": "warning",
        "S3 access": "ok",
    }
