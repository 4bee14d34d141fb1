"""The names of uploaded files, which become a part of a key, and what they say of the content."""

from __future__ import annotations

import re

NAME_CHARACTERS = 128
UNNAMED = "file"
_ENDING_CHARACTERS = 24  # of all endings together, such as .jsonl.gz
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_CHARACTERS}}}")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")
_ENDINGS = re.compile(r"(\.[A-Za-z0-9]{1,12}){1,2}\Z")

# What the data check reads by a file's ending. A file with one of the first endings, or with none
# of them, must have a JSON object on each line; the others are checked by the prepare Job only.
LINES = (".jsonl", ".ndjson")
OTHERS = (".csv", ".tsv", ".tab", ".xlsx", ".json", ".txt", ".parquet")
PACKED = (".gz", ".gzip", ".zst", ".zstd")


def safe_name(text: str) -> str:
    """The name under which a file is stored: of the path that a client sends, its last part."""
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    name = _FOREIGN.sub("-", last)
    if not name.strip("."):
        return UNNAMED
    if len(name) <= NAME_CHARACTERS:
        return name
    found = _ENDINGS.search(name[-_ENDING_CHARACTERS:])
    ending = found[0] if found else ""
    return name[: NAME_CHARACTERS - len(ending)] + ending


def is_safe_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and bool(name.strip("."))


def has_lines(name: str) -> bool:
    """Whether each line of the file must be a JSON object."""
    lower = name.lower()
    return not lower.endswith((*OTHERS, *PACKED))
