"""The entry point of the prepare pod: a PrepareTask becomes a dataset in S3."""

import tempfile
from pathlib import Path

from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask
from finetune_data import failures
from finetune_data.pod_task import PodTask


def _prepare(task: PrepareTask) -> Outcome:
    from finetune_data.prepare.job import prepare
    from finetune_storage.connect import open_storage

    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        return prepare(task, open_storage(), Path(folder))


def _describe(outcome: Outcome) -> str:
    found = outcome.prepared
    assert found is not None
    adopted = outcome.adopted
    return (
        f"prepared: {found.training_examples:,} training examples, "
        f"{found.validation_examples:,} validation examples, {found.training_tokens:,} tokens "
        f"per epoch, {found.steps:,} steps"
        f"{f'; found: {adopted.fine_tuned_model}' if adopted else ''}"
    )


POD = PodTask(
    "python -m finetune_data",
    "Check and tokenize the data of the PrepareTask in FINETUNE_TASK.",
    PrepareTask,
    _prepare,
    lambda error, lines: failures.crashed("prepare", error, lines),
    _describe,
)
