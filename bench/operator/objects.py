"""The FineTune of all measurements, two nodes without GPUs, and what poisons one."""

from __future__ import annotations

from typing import Any

# Merged into a status: the schema takes it, and every look at its clock raises. The reason is not
# "Suspended", whose clock nobody reads.
POISON = {
    "state": "pending",
    "reason": "Starting",
    "startedAt": "no time at all",
    "conditions": [],
}


def a_spec() -> dict[str, Any]:
    """As a person writes it."""
    return {
        "model": "ada",
        "trainingFile": "s3://bucket/train.jsonl",
        "resources": {"nodes": 2, "gpusPerNode": 0},
    }
