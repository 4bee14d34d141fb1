"""Records to examples: which columns mean what, decided by the first record that is clear.

Text stays text. A value of the wrong kind, a missing key or an empty completion is a Problem that
names the key, so that the reader can say at which column of the line it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune_data.conversations import from_sharegpt, parse_conversation
from finetune_data.examples import Example, Row
from finetune_data.findings import shown
from finetune_data.formats.json_text import name_kind

PROMPT, COMPLETION = "prompt", "completion"
EXTRA_NAMES = 50  # columns that are remembered

# What people call the two columns elsewhere: never guessed, only proposed.
PAIRS = (
    ("question", "answer"),
    ("input", "output"),
    ("prompt", "response"),
    ("query", "response"),
    ("source", "target"),
    ("text", "label"),
    ("user", "assistant"),
)


class Problem(NamedTuple):
    """Why a record is no example, and at which key."""

    code: str
    message: str
    key: str | None = None


Convert = Callable[[int, Mapping[str, Any]], Example | Problem]


@dataclass(frozen=True)
class Shape:
    """How records become examples."""

    name: str  # "prompt/completion", "chat", ...
    convert: Convert
    columns: tuple[str, ...]  # that are read
    note: str | None = None

    def ignored(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in self.columns)[:EXTRA_NAMES]


def detect_shape(
    names: Iterable[str], prompt_column: str | None = None, completion_column: str | None = None
) -> Shape | Problem:
    """The shape of records with these keys."""
    names = [name for name in names if name]
    if prompt_column is not None or completion_column is not None:
        return _mapped(names, prompt_column, completion_column)
    plain = {name.strip().lower(): name for name in reversed(names)}
    if "messages" in plain:
        return _chat(plain, "messages", "chat")
    if "conversations" in plain:
        return _chat(plain, "conversations", "ShareGPT")
    if PROMPT in plain and COMPLETION in plain:
        return _rows(plain[PROMPT], plain[COMPLETION])
    if "instruction" in plain and "output" in plain:
        return _alpaca(plain)
    if PROMPT not in plain and COMPLETION not in plain and "text" in plain and len(plain) == 1:
        return _text(plain["text"])
    return _unknown(names, plain)


def text_problem(text: str) -> tuple[str, str] | None:
    """What makes a text unfit, as a code and half a sentence."""
    if "\0" in text:
        return "nul", "holds a NUL character (\\u0000)"
    if not text.isascii() and (found := _SURROGATE.search(text)):
        code = ord(found[0])
        if 0xDC80 <= code <= 0xDCFF:  # where a reader kept a byte that it could not decode
            return "not-utf8", f"is not valid UTF-8: byte 0x{code - 0xDC00:02x}"
        return "surrogate", f"holds half of a surrogate pair (\\u{code:04x}), which is no character"
    return None


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _rows(prompt: str, completion: str, name: str = "prompt/completion") -> Shape:
    def convert(line: int, record: Mapping[str, Any]) -> Example | Problem:
        texts = []
        for key in (prompt, completion):
            found = take_text(record, key, may_be_missing=False)
            if isinstance(found, Problem):
                return found
            texts.append(found)
        if not texts[1]:
            return Problem("empty-completion", f"{shown(completion)} is empty", completion)
        extra = tuple(key for key in record if key not in (prompt, completion))
        return Row(line, texts[0], texts[1], extra)

    renamed = [
        f"{shown(theirs)} is read as {ours}"
        for ours, theirs in ((PROMPT, prompt), (COMPLETION, completion))
        if ours != theirs
    ]
    note = f"the column {', '.join(renamed)}" if renamed else None
    return Shape(name, convert, (prompt, completion), note)


def take_text(record: Mapping[str, Any], key: str, *, may_be_missing: bool) -> str | Problem:
    """A text, or what is wrong with it. An empty cell of a table is an empty text."""
    if key not in record:
        if may_be_missing:
            return ""
        return Problem("missing-key", f"missing key {shown(key)}{_instead(key, record)}")
    value = record[key]
    if value is None and (may_be_missing or isinstance(record, Cells)):
        return ""
    if not isinstance(value, str):
        message = f"{shown(key)} is {name_kind(value)}, expected a string"
        return Problem("wrong-type", message, key)
    if (problem := text_problem(value)) is not None:
        return Problem(problem[0], f"{shown(key)} {problem[1]}", key)
    return value


class Cells(dict[str, Any]):
    """A record of a table, where an empty cell means nothing written, not JSON's null."""


def _instead(key: str, record: Mapping[str, Any]) -> str:
    alike = next((other for other in record if other.strip().lower() == key.lower()), None)
    if alike is not None:
        return f"; did you mean {shown(alike)}?"
    names = ", ".join(shown(name) for name in list(record)[:4])
    return f"; the line has {names}" if names else "; the object is empty"


def _mapped(names: list[str], prompt: str | None, completion: str | None) -> Shape | Problem:
    completion = completion if completion is not None else COMPLETION
    wanted = [name for name in (prompt, completion) if name is not None]
    for name in wanted:
        if name not in names:
            have = ", ".join(shown(each) for each in names[:8])
            return Problem("missing-key", f"there is no column {shown(name)}; there are {have}")
    if prompt is None:
        return _rows(PROMPT, completion, "mapped columns") if PROMPT in names else _text(completion)
    return _rows(prompt, completion, "mapped columns")


def _alpaca(plain: Mapping[str, str]) -> Shape:
    """The instruction, an empty line, its input: what a user would write, without a template."""
    instruction, output = plain["instruction"], plain["output"]
    context = plain.get("input", "input")

    def convert(line: int, record: Mapping[str, Any]) -> Example | Problem:
        texts = []
        for key, may_be_missing in ((instruction, False), (context, True), (output, False)):
            found = take_text(record, key, may_be_missing=may_be_missing)
            if isinstance(found, Problem):
                return found
            texts.append(found)
        if not texts[2]:
            return Problem("empty-completion", f"{shown(output)} is empty", output)
        return Row(line, "\n\n".join(filter(None, texts[:2])), texts[2])

    return Shape("Alpaca", convert, (instruction, context, output))


def _text(column: str) -> Shape:
    def convert(line: int, record: Mapping[str, Any]) -> Example | Problem:
        found = take_text(record, column, may_be_missing=False)
        if isinstance(found, Problem):
            return found
        if not found:
            return Problem("empty-completion", f"{shown(column)} is empty", column)
        return Row(line, "", found)

    note = "each text is a completion with an empty prompt: open-ended generation"
    return Shape("text", convert, (column,), note)


def _chat(plain: Mapping[str, str], key: str, name: str) -> Shape:
    column = plain[key]
    others = tuple(plain[each] for each in ("tools", "functions", "system") if each in plain)

    def convert(line: int, record: Mapping[str, Any]) -> Example | Problem:
        parse = from_sharegpt if name == "ShareGPT" else parse_conversation
        found = parse(line, record, column)
        return Problem(*found) if isinstance(found, tuple) and len(found) == 3 else found

    return Shape(name, convert, (column, *others, "parallel_tool_calls"))


def _unknown(names: list[str], plain: Mapping[str, str]) -> Problem:
    for prompt, completion in PAIRS:
        if prompt in plain and completion in plain:
            return Problem(
                "missing-key",
                f"the columns are {shown(plain[prompt])} and {shown(plain[completion])}: say that "
                f"they are prompt and completion with --prompt-column {plain[prompt]} "
                f"--completion-column {plain[completion]}",
            )
    if PROMPT in plain or COMPLETION in plain:
        missing = COMPLETION if PROMPT in plain else PROMPT
    else:
        missing = PROMPT
    return Problem(
        "missing-key",
        f"missing key {shown(missing)}{_instead(missing, dict.fromkeys(names))} "
        "(--prompt-column and --completion-column take others)",
    )
