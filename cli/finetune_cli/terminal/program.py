"""The program's own name, as the person called it, and its exit codes."""

from __future__ import annotations

EXIT_USAGE = 2  # a wrong command line; click's own
EXIT_NOT_SUCCEEDED = 3  # the FineTune failed or was cancelled
EXIT_INTERRUPTED = 130  # Ctrl-C, as shells say it

_called = "finetune"


def program(file_name: str = "") -> str:
    """`finetune`, or `kubectl finetune` where kubectl runs it as its plugin."""
    global _called  # noqa: PLW0603 - a process has one name
    if file_name:
        is_plugin = file_name.removesuffix(".exe") in {"kubectl-finetune", "kubectl_finetune"}
        _called = "kubectl finetune" if is_plugin else "finetune"
    return _called
