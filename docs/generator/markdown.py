"""Tables, code spans, and escaped text in Markdown."""

from collections.abc import Iterable, Sequence

HEADER = "<!-- Generated from the code by `make generate`. Change the code, not this page. -->\n\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. A bar in a cell is escaped, and a line break becomes a space."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def code(text: object) -> str:
    """A code span, or an empty string for an empty text."""
    return f"`{text}`" if str(text) else ""


def sentence(text: str) -> str:
    """Text without Markdown or HTML syntax: `<` and `*` are escaped."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
