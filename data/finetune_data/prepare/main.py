"""The prepare pod: a task from the environment, an outcome as the termination message.

A user's mistake becomes a sentence, never a traceback. The root file system can be read-only: all
files go to TMPDIR.
"""

import argparse
import errno
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.names import ENV_TASK, EXIT_PREEMPTED, TERMINATION_MESSAGE_PATH
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import PrepareTask
from finetune_data import failures
from finetune_data.pod_log import log
from finetune_data.termination import finish
from finetune_storage.audience import process_audience

LOG_LINES = 20


def main() -> int:
    """Run the task in FINETUNE_TASK; returns the pod's exit code."""
    parser = argparse.ArgumentParser(prog="python -m finetune_data", description=__doc__)
    parser.add_argument(
        "--termination-log",
        default=os.environ.get("FINETUNE_TERMINATION_LOG", TERMINATION_MESSAGE_PATH),
        help="file for the outcome (default: %(default)s)",
    )
    arguments = parser.parse_args()
    # process 1 of a container has no default action for SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_PREEMPTED))
    outcome = run(os.environ.get(ENV_TASK, ""))
    if outcome.failure is not None:
        log(f"failed: {outcome.failure.message}")
        for line in outcome.failure.lines or []:
            log(f"  {line}")
    elif outcome.prepared is not None:
        found = outcome.prepared
        log(
            f"prepared: {found.training_examples:,} training examples, "
            f"{found.validation_examples:,} validation examples, {found.training_tokens:,} tokens "
            f"per epoch, {found.steps:,} steps"
        )
    return finish(outcome, arguments.termination_log)


def run(task_json: str) -> Outcome:
    """The outcome of a task. An unexpected exception becomes an outcome, too."""
    try:
        task = PrepareTask.model_validate_json(task_json)
    except ValidationError as error:
        return Outcome(failure=failures.invalid_task("PrepareTask", error))
    try:
        from finetune_data.prepare.job import prepare
        from finetune_storage.connect import open_storage

        with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
            return prepare(task, open_storage(), Path(folder))
    except FailureError as error:
        return Outcome(failure=error.failure_for(process_audience()))
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            return Outcome(failure=_crash(error))
        return Outcome(failure=failures.full_volume(tempfile.gettempdir()))
    except Exception as error:
        return Outcome(failure=_crash(error))


def _crash(error: Exception) -> Failure:
    traceback.print_exc()
    lines = traceback.format_exc().strip().splitlines()[-LOG_LINES:]
    return failures.crashed("prepare", error, lines)
