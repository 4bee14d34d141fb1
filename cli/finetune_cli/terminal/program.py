"""The program's name as the user called it, and its exit codes."""

from __future__ import annotations

EXIT_USAGE = 2  # an invalid command line; click uses the same code
EXIT_NOT_SUCCEEDED = 3  # the FineTune failed or was cancelled
EXIT_NOT_BETTER = 4  # the evaluated model does not beat the other
EXIT_INTERRUPTED = 130  # Ctrl-C; shells use the same code

_called = "finetune"


def program_name(file_name: str = "") -> str:
    """`finetune`, or `kubectl finetune` if kubectl runs the program as a plugin."""
    global _called  # noqa: PLW0603 - a process has one name
    if file_name:
        is_plugin = file_name.removesuffix(".exe") in {"kubectl-finetune", "kubectl_finetune"}
        _called = "kubectl finetune" if is_plugin else "finetune"
    return _called
