"""The files next to a manifest on a user's machine: data, and a list of base models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_models(folder: Path, base: Path, name: str = "tiny") -> None:
    """models.yaml with a base model in a folder of this machine."""
    entry = {
        "name": name,
        "uri": str(base),
        "pretrainingLearningRate": 0.01,
        "contextLength": 64,
    }
    (folder / "models.yaml").write_text(yaml.safe_dump([entry]))


def write_finetune(folder: Path, **spec: Any) -> None:
    """finetune.yaml for the model `tiny`; a field that is None is left out."""
    fields = {"model": "tiny", "trainingFile": "train.jsonl", **spec}
    manifest = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": "tone"},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }
    (folder / "finetune.yaml").write_text(yaml.safe_dump(manifest))
