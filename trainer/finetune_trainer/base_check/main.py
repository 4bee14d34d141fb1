"""The entry point of the check container: a task from the environment, a failure as the message."""

import argparse
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.names import ENV_TASK, EXIT_OK, EXIT_PREEMPTED, TERMINATION_MESSAGE_PATH
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import PrepareTask
from finetune_data.pod_log import log
from finetune_data.termination import finish
from finetune_storage.audience import process_audience
from finetune_trainer import base_model_failures, failures

LOG_LINES = 20


def main() -> int:
    """Check the base model of the PrepareTask in FINETUNE_TASK; returns the exit code."""
    parser = argparse.ArgumentParser(prog="finetune_trainer.base_check", description=main.__doc__)
    parser.add_argument("--termination-log", default=TERMINATION_MESSAGE_PATH)
    options = parser.parse_args()
    # process 1 of a container has no default action for SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_PREEMPTED))
    failure = run(os.environ.get(ENV_TASK, ""))
    if failure is None:
        return EXIT_OK
    log(f"failed: {failure.message}")
    for line in failure.lines or []:
        log(f"  {line}")
    return finish(Outcome(failure=failure), options.termination_log)


def run(task_json: str) -> Failure | None:
    """The failure of a check; None for a base model that can be trained. Never raises."""
    try:
        task = PrepareTask.model_validate_json(task_json)
    except ValidationError as error:
        return failures.invalid_task(error)
    try:
        from finetune_storage.connect import open_storage
        from finetune_trainer.base_check.job import check

        with tempfile.TemporaryDirectory(prefix="finetune-base-") as folder:
            check(task, open_storage(), Path(folder) / "model")
    except FailureError as error:
        return error.failure_for(process_audience())
    except Exception as error:
        traceback.print_exc()
        lines = traceback.format_exc().strip().splitlines()[-LOG_LINES:]
        return base_model_failures.check_crashed(error, lines)
    return None
