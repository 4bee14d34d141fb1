"""Looks up the model of a FineTune whose Job was deleted, with the task in FINETUNE_TASK.

The outcome is that of the rank 0 that has published the model, or DataNotFound.
"""

import argparse
import os
import traceback

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST
from finetune_api.names import ENV_TASK, TERMINATION_MESSAGE_PATH
from finetune_api.outcome import Outcome
from finetune_api.tasks import LookupTask
from finetune_data import failures
from finetune_data.lookup.published import find_published
from finetune_data.pod_log import log
from finetune_data.termination import finish
from finetune_storage.connect import open_storage


def main() -> int:
    """Run the task in FINETUNE_TASK; returns the pod's exit code."""
    parser = argparse.ArgumentParser(prog="python -m finetune_data.lookup", description=__doc__)
    parser.add_argument(
        "--termination-log",
        default=os.environ.get("FINETUNE_TERMINATION_LOG", TERMINATION_MESSAGE_PATH),
        help="file for the outcome (default: %(default)s)",
    )
    arguments = parser.parse_args()
    outcome = run(os.environ.get(ENV_TASK, ""))
    if outcome.trained is not None:
        log(f"found: {outcome.trained.fine_tuned_model} at {outcome.trained.model_uri}")
    elif outcome.failure is not None:
        log(f"not found: {outcome.failure.message}")
    return finish(outcome, arguments.termination_log)


def run(task_json: str) -> Outcome:
    """The outcome of a task. An unexpected exception becomes an outcome, too."""
    try:
        run_ref = LookupTask.model_validate_json(task_json).run
    except ValidationError as error:
        return Outcome(failure=failures.invalid_task("LookupTask", error))
    try:
        found = find_published(run_ref, open_storage())
    except FailureError as error:
        return Outcome(failure=error.failure)
    except Exception as error:
        traceback.print_exc()
        return Outcome(failure=failures.crashed("lookup", error))
    missing = failures.no_published_model(run_ref.layout.model.child(MANIFEST))
    return found or Outcome(failure=missing)
