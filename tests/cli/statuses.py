"""Statuses as the operator writes them, for tests that play it."""

from typing import Any


def status(state: str, *messages: str, **more: Any) -> dict[str, Any]:
    """A status as the operator writes it."""
    events = [
        {"at": f"2026-11-21T12:00:{second:02d}Z", "reason": "Said", "message": message}
        for second, message in enumerate(messages)
    ]
    return {"state": state, "events": events, **more}


def resolved(bucket: str) -> dict[str, Any]:
    return {
        "base": {
            "name": "ada",
            "root": "ada",
            "uri": f"s3://{bucket}/ada",
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
        },
        "runtime": {"name": "cpu", "trainerImage": "t", "prepareImage": "p", "accelerator": "cpu"},
        "organization": "team",
        "output": f"s3://{bucket}/out",
        "secretName": "finetune-s3",
    }
