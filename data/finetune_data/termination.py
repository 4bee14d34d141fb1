"""The end of a pod: its termination message, and the exit code that belongs to it."""

import sys
from pathlib import Path

from finetune_api.names import (
    EXIT_CRASH,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    EXIT_USER,
    TERMINATION_MESSAGE_PATH,
    USER_REASONS,
    Reason,
)
from finetune_api.outcome import Failure, Outcome


def exit_code(failure: Failure | None) -> int:
    """The exit code, which says whether a retry can succeed."""
    if failure is None:
        return EXIT_OK
    if failure.code in USER_REASONS:
        return EXIT_USER
    return EXIT_UNAVAILABLE if failure.code == Reason.S3_UNAVAILABLE else EXIT_CRASH


def finish(outcome: Outcome, path: Path | str = TERMINATION_MESSAGE_PATH) -> int:
    """Write the outcome as the pod's termination message; returns the code to exit with.

    If the message cannot be written, an error goes to stderr: Kubernetes falls back to the log.
    """
    try:
        Path(path).write_text(outcome.to_termination_message(), encoding="utf-8")
    except OSError as error:
        print(f"the termination message cannot be written to {path}: {error}", file=sys.stderr)
    return exit_code(outcome.failure)
