"""The version of an object: what distinguishes its content from those before and after it.

An ETag identifies a version exactly. Without one, and with a weak one, the time of the last change
and the size remain, which are equal for two versions of one second and one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

WEAK = "W/"  # starts an ETag that equal bytes need not share


@dataclass(frozen=True)
class ObjectEntry:
    """One object: its full key, its size in bytes, and its version."""

    key: str
    size: int
    etag: str  # without quotes; empty if the store has none
    modified: str = ""  # the time of the last change in whole seconds; empty if it is unknown
    is_weak: bool = False  # whether the ETag is weak

    @property
    def strong_etag(self) -> str:
        """The ETag if it identifies the bytes; empty otherwise."""
        return "" if self.is_weak else self.etag

    @property
    def version(self) -> str:
        """The text that differs, as far as the store shows, for every content of one size."""
        return self.etag or self.modified

    def is_same_as(self, other: ObjectEntry) -> bool:
        """Whether both are the same version, as far as the store shows."""
        if self.size != other.size:
            return False
        if self.etag and other.etag:
            return self.etag == other.etag
        return self.is_as_old_as(other)

    def is_as_old_as(self, other: ObjectEntry) -> bool:
        """Whether size and time agree, whatever the ETags are. An unknown time agrees."""
        known = self.modified and other.modified
        return self.size == other.size and (not known or self.modified == other.modified)


def parse_entry(key: str, answer: Mapping[str, Any], size: int) -> ObjectEntry:
    """The entry of an answer to a request, or of an item of a listing, as boto3 parses them."""
    etag = str(answer.get("ETag") or "").strip()
    is_weak = etag.startswith(WEAK)
    changed = answer.get("LastModified")
    return ObjectEntry(
        key,
        size,
        etag.removeprefix(WEAK).strip('"'),
        # a listing has fractions of a second, and the answer about an object has none
        modified=f"{changed:%Y-%m-%dT%H:%M:%SZ}" if isinstance(changed, datetime) else "",
        is_weak=is_weak,
    )


def whole_size(answer: Mapping[str, Any]) -> int | None:
    """The bytes of the whole object; None if the answer does not contain it.

    An answer with a part of the object names them after a slash: `bytes 0-9/1000`.
    """
    total = str(answer.get("ContentRange") or "").rpartition("/")[2]
    if total:
        return int(total) if total.isdecimal() else None
    is_part = answer["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT
    return None if is_part else answer.get("ContentLength")
