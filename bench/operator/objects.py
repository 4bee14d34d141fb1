"""The FineTune of all measurements: two nodes without GPUs."""

from __future__ import annotations

from typing import Any


def a_spec() -> dict[str, Any]:
    """As a person writes it."""
    return {
        "model": "ada",
        "trainingFile": "s3://bucket/train.jsonl",
        "resources": {"nodes": 2, "gpusPerNode": 0},
    }
