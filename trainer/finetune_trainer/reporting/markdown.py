"""Strangers' words in Markdown and YAML: nothing they write is markup there."""

import json
import re
from collections.abc import Sequence


def printable(text: str) -> str:
    """Characters that YAML or a reader can't bear become U+FFFD; line breaks and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def code(text: str) -> str:
    """A code span on one line, also within a table."""
    text = " ".join(printable(text).split())
    if not text:
        return "(empty)"
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}".replace("|", "\\|")


def block(text: str) -> str:
    """A fenced block: as it is, on its own lines."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{printable(text)}\n{fence}"


def plain(text: str) -> str:
    """Words in a paragraph or a cell; every character that could be markup is escaped."""
    text = " ".join(printable(text).split())
    text = re.sub(r"([\\`*_{}\[\]<>()#|!~&$@])", r"\\\1", text)
    return re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", text)  # else GitHub makes links of them


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Cells are Markdown already."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scalar(value: str | float) -> str:
    """A value in YAML, which every JSON string and number is."""
    if isinstance(value, str):
        return json.dumps(printable(value), ensure_ascii=False)
    return repr(round(value, 6))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
