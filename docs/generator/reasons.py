"""Reasons, Events and exit codes."""

import re
from collections.abc import Iterable

from docs.generator.markdown import HEADER, code, sentence, table
from docs.generator.source import ROOT, Saying, reasons, sayings, story
from finetune_api.names import END_REASONS, HEALTHY_REASONS, PENDING_REASONS, USER_REASONS
from finetune_cli.main import finetune

REASONS = """# Reasons

The words of `status.reason`, `status.error.code`, `status.attempts[].reason`, of conditions and of
the metrics' label `reason`: a closed set. Each links to [what it means and what to
do](../troubleshooting.md). Below it are the sentences that it comes with and their hints, as they
stand in the code; `...` is where a name or a number is put in.

"""
GROUPS = (
    ("No action needed", "The FineTune is in progress, or it ended as requested."),
    (
        "Waiting",
        "The pods are requested and not running yet. `pendingDeadlineSeconds` limits the wait.",
    ),
    (
        "Errors to fix",
        "The FineTune fails immediately and is not retried, because the same input would fail "
        "again. The exit code of the pods is 65.",
    ),
    (
        "Errors that can be retried",
        "After most of these errors, another attempt starts from the last checkpoint, until "
        "`spec.maxRestarts` is reached. [Troubleshooting](../troubleshooting.md) says which "
        "errors count toward that limit.",
    ),
)
EVENTS = """# Events

What `kubectl describe finetune` and `status.events` tell, in the old service's words. `...` is
where something is put in; `Advice` is a sentence about the data or the plan, and stands in the
status alone. Kubernetes forgets its Events after an hour; the newest 64 stay in the status.

"""
CODES = """# Exit codes

"""
FAILED = "Fine-tune failed. ..."


def pages() -> dict[str, str]:
    """Page -> text."""
    return {
        "reference/reasons.md": HEADER + REASONS + _groups(),
        "reference/events.md": HEADER + EVENTS + _events(),
        "reference/exit-codes.md": HEADER + CODES + _codes(),
    }


def group(reason: str) -> str:
    """Which of GROUPS a reason belongs to, by its title."""
    titles = [title for title, _ in GROUPS]
    if reason in HEALTHY_REASONS:
        return titles[0]
    if reason in PENDING_REASONS:
        return titles[1]
    return titles[2] if reason in USER_REASONS else titles[3]


def _groups() -> str:
    said = sayings()
    parts = []
    for title, words in GROUPS:
        chosen = [value for value in reasons() if group(value) == title]
        entries = "".join(_entry(value, said) for value in chosen)
        parts.append(f"## {title}\n\n{words}\n\n{entries}")
    return "".join(parts).rstrip() + "\n"


def _entry(reason: str, said: Iterable[Saying]) -> str:
    own = [item for item in said if item.reason == reason]
    told = "" if reason in END_REASONS | HEALTHY_REASONS else " (not told at present)"
    lines = [f"### [{reason}](../troubleshooting.md#{reason.lower()}){told}\n"]
    for item in own:
        field = f" ({code(item.param)})" if item.param else ""
        hint = f" *{sentence(item.hint)}*" if item.hint else ""
        message = sentence(item.message.strip())
        lines.append(f"- {message}{field}{hint}" if message else f"-{hint}")
    return "\n".join([lines[0], *dict.fromkeys(lines[1:])]) + ("\n\n" if own else "\n")


def _events() -> str:
    rows = []
    for told in story():
        reason = code(told.reason) if told.reason else "the [reason](reasons.md)"
        kind = "Normal" if told.level == "info" else "Warning"
        rows.append([reason, kind, sentence(told.message)])
    return table(["reason", "type", "words"], sorted(rows, key=lambda row: row[2]))


def _codes() -> str:
    pods = _constants("api/finetune_api/names.py")
    own = re.findall(r"(\d+) ([^,.]+)", finetune.epilog or "")
    return (
        "## Pods\n\n`status.error.exitCode`, `status.attempts[].exitCode`. Above 128 it is 128 "
        "and the number of a signal: 137 is SIGKILL.\n\n"
        + table(["code", "meaning"], pods)
        + "\n## The command line\n\n"
        + table(["code", "meaning"], own)
        + "\nOf `create` and `follow` 0 says that the FineTune succeeded.\n"
    )


def _constants(path: str) -> list[tuple[str, str]]:
    """`EXIT_NAME = 65  # words` -> (65, words)."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.findall(r"^EXIT_(\w+) = (\d+)(?:  # (.*))?$", text, re.MULTILINE)
    return [(number, words or "done") for _, number, words in found]
