"""The FineTune of all measurements (two nodes without GPUs) and a status that breaks reconciles."""

from __future__ import annotations

from typing import Any

# Merged into a status: the schema accepts it, and every read of its time raises an error. The
# reason is not "Suspended", because the operator does not read that time.
POISON = {
    "state": "pending",
    "reason": "Starting",
    "startedAt": "not a time",
    "conditions": [],
}


def a_spec() -> dict[str, Any]:
    """Return the spec as a user writes it."""
    return {
        "model": "ada",
        "trainingFile": "s3://bucket/train.jsonl",
        "resources": {"nodes": 2, "gpusPerNode": 0},
    }
