"""A CPU pod with one task: it comes from the environment, and an outcome is the last message.

The task runs in a confined process (`confined`), because the files of a base model or of a user can
be hostile. A user's mistake becomes a sentence, never a traceback. The root file system can be
read-only: all files go to TMPDIR.
"""

import argparse
import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from finetune_api.errors import FailureError
from finetune_api.names import ENV_TASK, EXIT_OK, EXIT_PREEMPTED, TERMINATION_MESSAGE_PATH
from finetune_api.outcome import Failure, Outcome
from finetune_data import failures
from finetune_data.confined.child import LostError
from finetune_data.confined.outcomes import confined_outcome
from finetune_data.pod_log import log
from finetune_data.termination import finish
from finetune_storage.messages import process_audience

LOG_LINES = 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Task = TypeVar("Task", bound=BaseModel)


@dataclass(frozen=True)
class PodTask(Generic[Task]):
    """One kind of task.

    program: the command, for `--help`. kind: the class of the task. work: carries the task out; it
    imports heavy libraries by itself, and its FailureErrors become failures. An outcome of nothing
    leaves no message. crashed: the failure for any other error, and the last lines of its
    traceback. describe: a success in one line, for the log. limits_data: of the confined process.
    """

    program: str
    description: str
    kind: type[Task]
    work: Callable[[Task], Outcome]
    crashed: Callable[[BaseException, list[str]], Failure]
    describe: Callable[[Outcome], str]
    limits_data: bool = True

    def main(self) -> int:
        """Run the task in FINETUNE_TASK; returns the exit code of the pod."""
        parser = argparse.ArgumentParser(prog=self.program, description=self.description)
        parser.add_argument(
            "--termination-log",
            default=os.environ.get("FINETUNE_TERMINATION_LOG", TERMINATION_MESSAGE_PATH),
            help="file for the outcome (default: %(default)s)",
        )
        path = parser.parse_args().termination_log
        # process 1 of a container has no default action for SIGTERM
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_PREEMPTED))
        try:
            given = os.environ.get(ENV_TASK, "")
            outcome = confined_outcome(lambda: self.run(given), limits_data=self.limits_data)
        except LostError as error:  # such as killed by the kernel for memory, which Kubernetes sees
            log(f"{error}")
            return error.exit_code
        if outcome.failure is None:
            log(self.describe(outcome))
        else:
            log(f"failed: {outcome.failure.message}")
            for line in outcome.failure.lines or []:
                log(f"  {line}")
        return EXIT_OK if outcome == Outcome() else finish(outcome, path)

    def run(self, task: str) -> Outcome:
        """The outcome of a task in JSON. An unexpected exception becomes an outcome, too."""
        try:
            value = self.kind.model_validate_json(task)
        except ValidationError as error:
            return Outcome(failure=failures.invalid_task(self.kind.__name__, error))
        try:
            return self.work(value)
        except FailureError as error:
            return Outcome(failure=error.failure_for(process_audience()))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of a library in Rust is no Exception
            if isinstance(error, OSError) and error.errno in FULL:
                return Outcome(failure=failures.full_volume(tempfile.gettempdir()))
            traceback.print_exc()
            lines = traceback.format_exc().strip().splitlines()[-LOG_LINES:]
            return Outcome(failure=self.crashed(error, lines))
