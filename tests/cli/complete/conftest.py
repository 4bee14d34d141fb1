"""A model that `finetune run` has trained, for the commands that ask it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Ran
from tests.support.local_files import write_finetune, write_models, write_rows
from tests.support.tiny_model import make_tiny_model

FOXES, CATS = "fox {} ->", "cat {} ->"


def execute(folder: Path, *arguments: str) -> Ran:
    """The command as its own process, on the CPU."""
    return subprocess.run(
        [sys.executable, "-m", "finetune_cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA model that answers after the animal; its folder as `finetune run` leaves it."""
    folder = tmp_path_factory.mktemp("run")
    rows = [
        {"prompt": (FOXES if n % 2 else CATS).format(n), "completion": " yes" if n % 2 else " no"}
        for n in range(64)
    ]
    write_rows(folder / "train.jsonl", rows)
    write_models(folder, base)
    write_finetune(
        folder,
        method={"type": "lora", "rank": 16},
        hyperparameters={"nEpochs": 16, "batchSize": 8, "learningRate": 0.01},
    )
    ran = execute(folder, "run", "-f", "finetune.yaml", "--cpu", "--models", "models.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (model,) = (folder / "finetune-output").glob("local/tone-*/model")
    return model
