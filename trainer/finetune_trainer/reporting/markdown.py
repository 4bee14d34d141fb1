"""Text from users in Markdown and YAML, escaped so that none of it becomes markup."""

import json
import re
from collections.abc import Sequence


def printable(text: str) -> str:
    """Replace unprintable characters, which YAML forbids, by U+FFFD; keep line breaks and tabs."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def code(text: str) -> str:
    """A code span on one line, valid inside a table, too."""
    text = " ".join(printable(text).split())
    if not text:
        return "(empty)"
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}".replace("|", "\\|")


def block(text: str) -> str:
    """A fenced block with the text as it is."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{printable(text)}\n{fence}"


def plain(text: str) -> str:
    """Text in a paragraph or a table cell, with all markup characters escaped."""
    text = " ".join(printable(text).split())
    text = re.sub(r"([\\`*_{}\[\]<>()#|!~&$@])", r"\\\1", text)
    return re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", text)  # GitHub would turn them into links


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table; the cells are Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scalar(value: str | float) -> str:
    """A value in YAML, of which JSON strings and numbers are a subset."""
    if isinstance(value, str):
        return json.dumps(printable(value), ensure_ascii=False)
    return repr(round(value, 6))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
