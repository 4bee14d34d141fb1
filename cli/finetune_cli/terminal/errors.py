"""What went wrong, as a person is told: one sentence, and the next step where one is known."""

from __future__ import annotations

import os
from dataclasses import dataclass

from finetune_api.names import EXIT_CRASH

TRACEBACK = "FINETUNE_TRACEBACK"  # environment: set, an error that nobody foresaw shows where


class CommandError(Exception):
    """A command can't go on; `message` is one sentence, `hint` the next step."""

    def __init__(self, message: str, hint: str = "", *, code: int = EXIT_CRASH) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


@dataclass(frozen=True)
class Complaint:
    """What is printed, and the exit code."""

    message: str
    hint: str
    code: int


def explain(error: Exception) -> Complaint:
    """The sentence for any exception that a command let through."""
    from finetune_api.errors import FailureError
    from finetune_storage.failures import StorageError

    if isinstance(error, CommandError):
        return Complaint(error.message, error.hint, error.code)
    if isinstance(error, StorageError):
        message = _for_this_machine(error.failure.message)
        return Complaint(message, error.failure.hint or "", EXIT_CRASH)
    if isinstance(error, FailureError):
        return Complaint(error.failure.message, error.failure.hint or "", EXIT_CRASH)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Complaint(f"{where}{error.strerror or error}", "", EXIT_CRASH)
    if isinstance(error, ImportError):
        return Complaint(
            f"the Python package {error.name} is missing",
            "pip install 'finetune-operator[cli]'",
            EXIT_CRASH,
        )
    what = " ".join(str(error).split())[:300]
    return Complaint(
        f"finetune has a defect: {type(error).__name__}: {what}",
        f"set {TRACEBACK}=1 to see where, and report it",
        EXIT_CRASH,
    )


def complain(error: Exception) -> int:
    """Print the sentence to stderr; returns the exit code."""
    import click

    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exception(error)
    complaint = explain(error)
    click.secho(f"error: {complaint.message}", fg="red", err=True)
    if complaint.hint:
        click.echo(f"hint: {complaint.hint}", err=True)
    return complaint.code


def _for_this_machine(message: str) -> str:
    """Storage speaks to pods, which have a Secret; a person has the environment."""
    from finetune_storage.errors import SECRET

    message = message.replace(f"into {SECRET}", "into the environment")
    message = message.replace(f"in {SECRET}", "in the environment")
    message = message.replace(
        ", or give the namespace's finetune ServiceAccount a workload identity",
        ", or set AWS_PROFILE",
    )
    return message.replace(" and that pods may reach it", "")
