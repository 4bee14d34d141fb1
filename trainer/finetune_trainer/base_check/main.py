"""The entry point of the check container: a failure is its message, and a success leaves none."""

import tempfile
from pathlib import Path

from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask
from finetune_data.pod_task import PodTask
from finetune_trainer import base_model_failures


def _check(task: PrepareTask) -> Outcome:
    from finetune_storage.connect import open_storage
    from finetune_trainer.base_check.job import check

    with tempfile.TemporaryDirectory(prefix="finetune-base-") as folder:
        check(task, open_storage(), Path(folder) / "model")
    return Outcome()


POD = PodTask(
    "python -m finetune_trainer.base_check",
    "Check the base model of the PrepareTask in FINETUNE_TASK.",
    PrepareTask,
    _check,
    base_model_failures.check_crashed,
    lambda _: "the base model is checked",
    limits_data=False,  # the libraries map files of weights
)
