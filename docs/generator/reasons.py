"""The reference pages of reasons, Events, and exit codes."""

import re

from docs.generator import catalog
from docs.generator.markdown import HEADER, code, sentence, table
from docs.generator.source import ROOT, Sentence, reasons, sentences
from finetune_api.names import END_REASONS, HEALTHY_REASONS, PENDING_REASONS, USER_REASONS
from finetune_cli.main import finetune

REASONS = """# Reasons

The values of `status.reason`, `status.error.code`, `status.attempts[].reason`, the reasons of
conditions, and the metric label `reason`. The set is closed. Each reason links to [its meaning and
its solutions](../troubleshooting.md) and lists the messages that come with it, with their hints in
italics. `...` stands for a name, a number, or the message of another component.

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

The Events that `kubectl describe finetune` and `status.events` show. Where OpenAI's fine-tunes API
has the same event, the message starts with the same words. `...` stands for a name or a number.
`Advice` is a sentence about the data or the plan. It is only in the status, as are
`BaseModelLoaded` and `ResultsUploaded`, which another event follows or precedes at once. Kubernetes
deletes Events after an hour; the status keeps the newest 64.

In the status, `attempt` and `key` identify an Event together with its reason: each combination is
recorded once.

"""
CODES = """# Exit codes

"""


def pages() -> dict[str, str]:
    """Map each page to its text."""
    return {
        "reference/reasons.md": HEADER + REASONS + _groups(),
        "reference/events.md": HEADER + EVENTS + _events(),
        "reference/exit-codes.md": HEADER + CODES + _codes(),
    }


def group(reason: str) -> str:
    """The title of the group that a reason belongs to."""
    titles = [title for title, _ in GROUPS]
    if reason in HEALTHY_REASONS:
        return titles[0]
    if reason in PENDING_REASONS:
        return titles[1]
    return titles[2] if reason in USER_REASONS else titles[3]


def _groups() -> str:
    parts = []
    for title, introduction in GROUPS:
        chosen = [value for value in reasons() if group(value) == title]
        entries = "".join(_entry(value) for value in chosen)
        parts.append(f"## {title}\n\n{introduction}\n\n{entries}")
    return "".join(parts).rstrip() + "\n"


def _entry(reason: str) -> str:
    is_used = reason in END_REASONS | HEALTHY_REASONS
    note = "" if is_used else " (not used at present)"
    lines = [_bullet(item) for item in sentences() if item.reason == reason]
    heading = f"### [{reason}](../troubleshooting.md#{reason.lower()}){note}\n"
    return "\n".join([heading, *dict.fromkeys(lines)]) + ("\n\n" if lines else "\n")


def _bullet(item: Sentence) -> str:
    field = f" ({code(item.param)})" if item.param else ""
    hint = f" *{sentence(_complete(item.hint))}*" if item.hint else ""
    return f"- {sentence(_complete(item.message))}{field}{hint}"


def _complete(text: str) -> str:
    """A capital letter, unless the text starts with a name, and a period."""
    text = text.strip().rstrip(":;")
    first = text.split()[0]
    if re.fullmatch(r"[a-z]+[,:]?", first) and first != "kubectl":
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _events() -> str:
    rows = []
    for event in catalog.events():
        reason = code(event.reason) if event.reason else "the [reason](reasons.md)"
        kind = "Normal" if event.level == "info" else "Warning"
        rows.append([reason, kind, sentence(event.message)])
    return table(["reason", "type", "message"], sorted(rows, key=lambda row: row[2]))


def _codes() -> str:
    pods = _constants("api/finetune_api/names.py")
    own = re.findall(r"(\d+) ([^,.]+)", finetune.epilog or "")
    return (
        "## Pods\n\nThe values of `status.error.exitCode` and `status.attempts[].exitCode`. A code "
        "above 128 is 128 plus the number of a signal: 137 is SIGKILL.\n\n"
        + table(["code", "meaning"], pods)
        + "\n## The command line\n\n"
        + table(["code", "meaning"], own)
        + "\nFor `create` and `follow`, 0 means that the FineTune succeeded.\n"
    )


def _constants(path: str) -> list[tuple[str, str]]:
    """Read `EXIT_NAME = 65  # comment` as (65, comment)."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.findall(r"^EXIT_(\w+) = (\d+)(?:  # (.*))?$", text, re.MULTILINE)
    return [(number, comment or "success") for _, number, comment in found]
