"""Records to examples: which columns mean what, decided by the first record that is clear.

Text stays text. A value of the wrong kind, a missing key or an empty completion is a Problem that
names the key, so that the reader can say at which column of the line it stands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune_data.read.conversations import from_sharegpt, parse_conversation
from finetune_data.read.examples import Example, Row
from finetune_data.read.findings import shown
from finetune_data.read.formats.json_text import name_kind

PROMPT, COMPLETION = "prompt", "completion"
EXTRA_NAMES = 50  # columns that are remembered
NAMES_SHOWN = 8

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
    """The shape of records with these keys; Cells have columns rather than keys."""
    is_table = isinstance(names, Cells)
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
    return _unknown(names, plain, is_table=is_table)


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


def _unknown(names: list[str], plain: Mapping[str, str], *, is_table: bool) -> Problem:
    """Said by the prepare Job, too, which has no flags: so the command is named in whole."""
    missing = [name for name in (PROMPT, COMPLETION) if name not in plain]
    if is_table:
        wanted = " and ".join(shown(name) for name in missing)
        have = ", ".join(shown(name) for name in names[:NAMES_SHOWN]) or "columns without a name"
        more = ", …" if len(names) > NAMES_SHOWN else ""
        nothing = "no column is" if len(missing) == 1 else "no columns are"
        message = f"{nothing} named {wanted}, there are only {have}{more}"
    else:
        message = f"missing key {shown(missing[0])}{_instead(missing[0], dict.fromkeys(names))}"
    if names:
        prompt, completion = _pair(plain)
        message += (
            f". `finetune prepare-data FILE --prompt-column {prompt} --completion-column "
            f"{completion}` makes a file that fits"
        )
    return Problem("missing-key", message)


def _pair(plain: Mapping[str, str]) -> tuple[str, str]:
    """The two columns, as words of a command; NAME where nobody can tell."""
    for pair in PAIRS:
        if all(name in plain for name in pair):
            return shlex.quote(plain[pair[0]]), shlex.quote(plain[pair[1]])
    found = [plain.get(name) for name in (PROMPT, COMPLETION)]
    prompt, completion = (shlex.quote(name) if name is not None else "NAME" for name in found)
    return prompt, completion
