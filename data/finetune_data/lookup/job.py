"""Looks up the model of a FineTune whose Job was deleted.

The outcome is that of the rank 0 that has published the model, or DataNotFound.
"""

from finetune_api.layout import MANIFEST
from finetune_api.outcome import Outcome
from finetune_api.tasks import LookupTask
from finetune_data import failures
from finetune_data.lookup.published import find_published
from finetune_data.pod_task import PodTask
from finetune_storage.connect import open_storage


def _look_up(task: LookupTask) -> Outcome:
    missing = failures.no_published_model(task.run.layout.model.child(MANIFEST))
    return find_published(task.run, open_storage()) or Outcome(failure=missing)


def _describe(outcome: Outcome) -> str:
    found = outcome.trained
    assert found is not None
    return f"found: {found.fine_tuned_model} at {found.model_uri}"


POD = PodTask(
    "python -m finetune_data.lookup",
    "Look up the model of the LookupTask in FINETUNE_TASK.",
    LookupTask,
    _look_up,
    lambda error, lines: failures.crashed("lookup", error, lines),
    _describe,
)
