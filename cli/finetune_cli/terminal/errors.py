"""Errors as users read them: one sentence, and a hint with the next step if one is known."""

from __future__ import annotations

import os
from dataclasses import dataclass

from finetune_api.names import EXIT_CRASH
from finetune_cli.terminal import output

TRACEBACK = "FINETUNE_TRACEBACK"  # environment variable: if set, errors print a traceback


class CommandError(Exception):
    """A command cannot continue. message: one sentence; hint: the next step."""

    def __init__(self, message: str, hint: str = "", *, code: int = EXIT_CRASH) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


@dataclass(frozen=True)
class ErrorReport:
    """The printed lines and the exit code."""

    message: str
    hint: str
    code: int


def describe_error(error: Exception) -> ErrorReport:
    """The message, hint, and exit code for any exception that a command raised."""
    from finetune_api.errors import Audience, FailureError

    if isinstance(error, CommandError):
        return ErrorReport(error.message, error.hint, error.code)
    if isinstance(error, FailureError):
        failure = error.failure_for(Audience.SHELL)
        return ErrorReport(failure.message, failure.hint or "", EXIT_CRASH)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return ErrorReport(f"{where}{error.strerror or error}", "", EXIT_CRASH)
    if isinstance(error, ImportError):
        return ErrorReport(
            f"the Python package {error.name} is not installed",
            "pip install 'finetune-operator[cli]'",
            EXIT_CRASH,
        )
    what = " ".join(str(error).split())[:300]
    return ErrorReport(
        f"internal error: {type(error).__name__}: {what}",
        f"set {TRACEBACK}=1 for a traceback and report the bug",
        EXIT_CRASH,
    )


def print_error(error: Exception) -> int:
    """Print the message and the hint to stderr; returns the exit code."""
    if os.environ.get(TRACEBACK):
        import traceback

        for part in traceback.format_exception(error):
            output.show(part.rstrip(), is_error=True)
    report = describe_error(error)
    output.show(f"error: {report.message}", is_error=True, color="red")
    if report.hint:
        output.show(f"hint: {report.hint}", is_error=True)
    return report.code
