"""The label and the annotation that the gateway writes on FineTunes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import orjson

from finetune_api.names import ANNOTATION_METADATA
from finetune_api.wire import JsonObject

MOST_PAIRS = 16
KEY_CHARACTERS, VALUE_CHARACTERS = 64, 512
LABEL_DIGITS = 32


def request_label(fingerprint: str, path: str, content: JsonObject | str) -> str:
    """A label value that equal requests of one caller share.

    fingerprint: of the caller. content: the body, or the Idempotency-Key in its place.
    """
    if isinstance(content, str):  # of a header, which can have any bytes
        kind, text = b"key", content.encode("utf-8", "surrogatepass")
    else:
        kind, text = b"body", orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    # Only the last part can contain a zero byte.
    joined = b"\0".join((fingerprint.encode(), path.encode("utf-8", "replace"), kind, text))
    return hashlib.sha256(joined).hexdigest()[:LABEL_DIGITS]


def is_metadata(value: object) -> bool:
    """Whether it is within OpenAI's limits: 16 pairs of texts of 64 and 512 characters."""
    return (
        isinstance(value, dict)
        and len(value) <= MOST_PAIRS
        and all(
            isinstance(key, str)
            and isinstance(text, str)
            and len(key) <= KEY_CHARACTERS
            and len(text) <= VALUE_CHARACTERS
            for key, text in value.items()
        )
    )


def write_metadata(metadata: Mapping[str, str]) -> str:
    return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS).decode()


def read_metadata(annotations: Mapping[str, str]) -> dict[str, str] | None:
    """The metadata of a FineTune; None if it has none, or what a user wrote there is none."""
    try:
        found = orjson.loads(annotations.get(ANNOTATION_METADATA, "null"))
    except ValueError:
        return None
    return found if is_metadata(found) else None
