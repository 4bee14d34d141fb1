"""The shapes of records: the columns of an example, decided by the first record that is clear.

Text stays unchanged. A value of the wrong type, a missing key, or an empty completion is a
RecordProblem that names the key, so that the reader can report the column in the line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_data.read.conversations import (
    EXTRA_NAMES,
    ChatColumns,
    parse_conversation,
)
from finetune_data.read.examples import Example, Row
from finetune_data.read.findings import shown
from finetune_data.read.formats.json_text import name_kind
from finetune_data.read.problems import RecordProblem, text_problem
from finetune_data.read.values import is_blank, plain_text

PROMPT, COMPLETION = "prompt", "completion"
NAMES_SHOWN = 8

# Other names of the two columns. They are never guessed, only proposed.
PAIRS = (
    ("question", "answer"),
    ("input", "output"),
    ("prompt", "response"),
    ("query", "response"),
    ("source", "target"),
    ("text", "label"),
    ("user", "assistant"),
)


Convert = Callable[[int, Mapping[str, Any]], Example | RecordProblem]


@dataclass(frozen=True)
class Shape:
    """The conversion of records to examples."""

    name: str  # "prompt/completion", "chat", ...
    convert: Convert
    columns: tuple[str, ...]  # the columns that are read
    note: str | None = None

    def ignored(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in self.columns)[:EXTRA_NAMES]


class Cells(dict[str, Any]):
    """A record of a table, in which an empty cell is a missing text and not JSON's null."""


def detect_shape(
    names: Iterable[str], prompt_column: str | None = None, completion_column: str | None = None
) -> Shape | RecordProblem:
    """The shape of records with these keys; Cells have columns instead of keys."""
    is_table = isinstance(names, Cells)
    names = [name for name in names if name]
    if prompt_column is not None or completion_column is not None:
        return _named_columns(names, prompt_column, completion_column)
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


def _extra(record: Mapping[str, Any], read: tuple[str, ...]) -> tuple[str, ...]:
    """The other columns that have a value."""
    return tuple(key for key, value in record.items() if key not in read and not is_blank(value))[
        :EXTRA_NAMES
    ]


def take_text(record: Mapping[str, Any], key: str, *, is_optional: bool) -> str | RecordProblem:
    """The text of a key, or its problem.

    null is an empty text, like an empty cell: Parquet, pandas, and workbooks write either. Numbers
    and booleans, such as the labels 0 and 1, are read as text.
    """
    if key not in record:
        if is_optional:
            return ""
        return RecordProblem("missing-key", f"missing key {shown(key)}{_suggestion(key, record)}")
    value = record[key]
    if value is None:
        return ""
    text = plain_text(value)
    if text is None:
        is_number = isinstance(value, float)
        wrong = (
            "a number that is too large" if is_number else f"{name_kind(value)}, expected a string"
        )
        return RecordProblem("wrong-type", f"{shown(key)} is {wrong}", key)
    if (problem := text_problem(text)) is not None:
        return RecordProblem(problem[0], f"{shown(key)} {problem[1]}", key)
    return text


def _take_texts(
    record: Mapping[str, Any], prompt_keys: Mapping[str, bool], completion: str
) -> tuple[list[str], str] | RecordProblem:
    """The texts of an example, whose completion must not be empty.

    prompt_keys: whether each of them is optional.
    """
    texts = []
    for key, is_optional in {**prompt_keys, completion: False}.items():
        found = take_text(record, key, is_optional=is_optional)
        if isinstance(found, RecordProblem):
            return found
        texts.append(found)
    if not texts[-1]:
        return RecordProblem("empty-completion", f"{shown(completion)} is empty", completion)
    return texts[:-1], texts[-1]


def _rows(prompt: str, completion: str, name: str = "prompt/completion") -> Shape:
    prompt_keys = {prompt: False}

    def convert(line: int, record: Mapping[str, Any]) -> Example | RecordProblem:
        found = _take_texts(record, prompt_keys, completion)
        if isinstance(found, RecordProblem):
            return found
        return Row(line, found[0][0], found[1], _extra(record, (prompt, completion)))

    renamed = [
        f"{shown(theirs)} is read as {ours}"
        for ours, theirs in ((PROMPT, prompt), (COMPLETION, completion))
        if ours != theirs
    ]
    note = f"the column {', '.join(renamed)}" if renamed else None
    return Shape(name, convert, (prompt, completion), note)


def _alpaca(plain: Mapping[str, str]) -> Shape:
    """The prompt is the instruction, an empty line, and the input: a user's text, no template."""
    instruction, output = plain["instruction"], plain["output"]
    context = plain.get("input", "input")
    prompt_keys = {instruction: False, context: True}

    def convert(line: int, record: Mapping[str, Any]) -> Example | RecordProblem:
        found = _take_texts(record, prompt_keys, output)
        if isinstance(found, RecordProblem):
            return found
        prompt = "\n\n".join(filter(None, found[0]))
        return Row(line, prompt, found[1], _extra(record, (*prompt_keys, output)))

    return Shape("Alpaca", convert, (instruction, context, output))


def _text(column: str) -> Shape:
    def convert(line: int, record: Mapping[str, Any]) -> Example | RecordProblem:
        found = _take_texts(record, {}, column)
        if isinstance(found, RecordProblem):
            return found
        return Row(line, "", found[1], _extra(record, (column,)))

    note = "each text is a completion with an empty prompt: open-ended generation"
    return Shape("text", convert, (column,), note)


def _chat(plain: Mapping[str, str], key: str, name: str) -> Shape:
    others = {name: plain[name] for name in ("tools", "functions", "system") if name in plain}
    columns = ChatColumns(plain[key], **others)
    is_sharegpt = name == "ShareGPT"

    def convert(line: int, record: Mapping[str, Any]) -> Example | RecordProblem:
        return parse_conversation(line, record, columns, is_sharegpt=is_sharegpt)

    return Shape(name, convert, (columns.messages, *others.values()))


def _named_columns(
    names: list[str], prompt: str | None, completion: str | None
) -> Shape | RecordProblem:
    completion = completion if completion is not None else COMPLETION
    wanted = [name for name in (prompt, completion) if name is not None]
    for name in wanted:
        if name not in names:
            have = ", ".join(shown(each) for each in names[:NAMES_SHOWN])
            message = f"there is no column {shown(name)}; the columns are {have}"
            return RecordProblem("missing-key", message)
    if prompt is None:
        return _rows(PROMPT, completion, "mapped columns") if PROMPT in names else _text(completion)
    return _rows(prompt, completion, "mapped columns")


def _suggestion(key: str, record: Mapping[str, Any]) -> str:
    alike = next((other for other in record if other.strip().lower() == key.lower()), None)
    if alike is not None:
        return f"; did you mean {shown(alike)}?"
    names = ", ".join(shown(name) for name in list(record)[:4])
    return f"; the line has {names}" if names else "; the object is empty"


def _unknown(names: list[str], plain: Mapping[str, str], *, is_table: bool) -> RecordProblem:
    """The message names the whole command, because the prepare Job reports it, too."""
    missing = [name for name in (PROMPT, COMPLETION) if name not in plain]
    if is_table:
        wanted = " and ".join(shown(name) for name in missing)
        have = ", ".join(shown(name) for name in names[:NAMES_SHOWN]) or "columns without a name"
        more = ", …" if len(names) > NAMES_SHOWN else ""
        nothing = "no column is" if len(missing) == 1 else "no columns are"
        message = f"{nothing} named {wanted}, there are only {have}{more}"
    else:
        message = f"missing key {shown(missing[0])}{_suggestion(missing[0], dict.fromkeys(names))}"
    if names:
        prompt, completion = _likely_columns(plain)
        message += (
            f". To convert the file, run `finetune prepare-data FILE --prompt-column {prompt} "
            f"--completion-column {completion}`"
        )
    return RecordProblem("missing-key", message)


def _likely_columns(plain: Mapping[str, str]) -> tuple[str, str]:
    """The two columns, quoted for a shell; NAME for an unknown one."""
    for pair in PAIRS:
        if all(name in plain for name in pair):
            return shlex.quote(plain[pair[0]]), shlex.quote(plain[pair[1]])
    found = [plain.get(name) for name in (PROMPT, COMPLETION)]
    prompt, completion = (shlex.quote(name) if name is not None else "NAME" for name in found)
    return prompt, completion
