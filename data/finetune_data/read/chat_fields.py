"""The fields of chats: texts, lists, and JSON in texts, each with its place for messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from finetune_api.limits import DataLimits
from finetune_data.read.formats.json_text import JsonError, decode_at, name_kind, skip_space
from finetune_data.read.problems import SURROGATE
from finetune_data.read.values import is_blank, plain_text

ENTRIES_AT_MOST = 10_000  # of a list
NESTING = DataLimits().max_nesting
_NUMBER = re.compile(r"\[[0-9]+\]")


class ChatError(Exception):
    """A problem of a conversation: a code and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def take_string(value: object, place: str) -> str:
    """A valid text. place: such as `messages[1].name`."""
    if not isinstance(value, str):
        raise ChatError("wrong-type", f"{place} is {name_kind(value)}, expected a string")
    if "\0" in value:
        raise ChatError("nul", f"{place} holds a NUL character (\\u0000)")
    if not value.isascii() and (found := SURROGATE.search(value)):
        half = f"\\u{ord(found[0]):04x}"
        raise ChatError("surrogate", f"{place} holds half of a surrogate pair ({half})")
    return value


def take_text(value: object, place: str) -> str:
    """A valid text, or the text of a number or boolean."""
    text = plain_text(value)
    return take_string(value if text is None else text, place)


def take_list(value: object, place: str) -> list[Any]:
    """A list, or its JSON as a text, such as in the cell of a table."""
    if isinstance(value, str):
        value = take_json(value, place, "a JSON array")
    if not isinstance(value, list):
        raise ChatError("wrong-type", f"{place} is {name_kind(value)}, expected an array")
    if len(value) > ENTRIES_AT_MOST:
        raise ChatError(
            "too-many", f"{place} has {len(value):,} entries, more than {ENTRIES_AT_MOST:,}"
        )
    return value


def take_object(value: object, place: str) -> dict[str, Any]:
    """An object, or its JSON as a text."""
    if isinstance(value, str):
        value = take_json(value, place, "a JSON object")
    if not isinstance(value, dict):
        raise ChatError("wrong-type", f"{place} is {name_kind(value)}, expected an object")
    return value


def take_json(text: str, place: str, wanted: str) -> Any:
    """The value of a JSON text. wanted: what is expected, for the message."""
    take_string(text, place)
    try:
        value, end = decode_at(text, skip_space(text, 0), NESTING)
    except JsonError as error:
        reason = f" ({error.message})" if error.code != "not-json" else ""
        raise ChatError("wrong-type", f"{place} is a text, but not {wanted}{reason}") from error
    if skip_space(text, end) < len(text):
        raise ChatError("wrong-type", f"{place} is a text, but not {wanted}")
    return value


def unread_keys(value: Mapping[str, Any], read: Collection[str], place: str) -> list[str]:
    """The names of the other keys that have a value: `messages[].refusal` for `messages[3]`."""
    return [
        f"{_NUMBER.sub('[]', place)}.{key}"
        for key, item in value.items()
        if key not in read and not is_blank(item)
    ]
