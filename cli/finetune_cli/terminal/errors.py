"""Errors as users read them: one sentence, and a hint with the next step if one is known."""

from __future__ import annotations

import os
from dataclasses import dataclass

from finetune_api.names import EXIT_CRASH

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
    import click

    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exception(error)
    report = describe_error(error)
    click.secho(f"error: {report.message}", fg="red", err=True)
    if report.hint:
        click.echo(f"hint: {report.hint}", err=True)
    return report.code
