"""Uploads in several requests: their ids, what is stored about them, and OpenAI's objects.

- `upload_` and a ULID: an upload. The file that it becomes has the same ULID, so that an upload
  can be completed only once, whatever is lost on the way.
- `part_` and a ULID: a part of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from finetune_api.wire import JsonObject, Stored
from finetune_gateway.wire.file_objects import StoredFile, file_object
from finetune_gateway.wire.ids import file_time, is_file_id, new_file_id

Status = Literal["pending", "completed", "cancelled"]
LIFETIME = timedelta(hours=1)
UPLOAD, PART, _FILE = "upload_", "part_", "file-"


class UploadSession(Stored):
    """What the first request says; the object upload.json."""

    bytes: int = Field(ge=1)
    filename: str = Field(min_length=1, max_length=128)  # as the file will be stored
    purpose: str = Field(min_length=1, max_length=64)
    mime_type: str = Field("", max_length=256)


class UploadOutcome(Stored):
    """The end of an upload; the object outcome.json, which is written once."""

    status: Literal["completed", "cancelled"]
    part_ids: list[str] = Field(default_factory=list, max_length=10_000)


def new_upload_id(now: datetime) -> str:
    return UPLOAD + new_file_id(now).removeprefix(_FILE)


def new_part_id(now: datetime) -> str:
    return PART + new_file_id(now).removeprefix(_FILE)


def is_upload_id(text: str) -> bool:
    return text.startswith(UPLOAD) and is_file_id(_FILE + text.removeprefix(UPLOAD))


def is_part_id(text: str) -> bool:
    return text.startswith(PART) and is_file_id(_FILE + text.removeprefix(PART))


def file_id_of(upload_id: str) -> str:
    """The id of the file that the upload becomes."""
    return _FILE + upload_id.removeprefix(UPLOAD)


def upload_time(upload_id: str) -> datetime:
    """The time of its first request."""
    return file_time(file_id_of(upload_id))


def part_time(part_id: str) -> datetime:
    return file_time(_FILE + part_id.removeprefix(PART))


def is_expired(upload_id: str, now: datetime) -> bool:
    return now - upload_time(upload_id) > LIFETIME


def upload_object(
    upload_id: str, session: UploadSession, status: Status, file: StoredFile | None = None
) -> JsonObject:
    """OpenAI's Upload object. file: what it has become."""
    created = int(upload_time(upload_id).timestamp())
    return {
        "id": upload_id,
        "object": "upload",
        "bytes": session.bytes,
        "created_at": created,
        "expires_at": created + int(LIFETIME.total_seconds()),
        "filename": session.filename,
        "purpose": session.purpose,
        "status": status,
        "file": None if file is None else file_object(file),
    }


def part_object(upload_id: str, part_id: str) -> JsonObject:
    """OpenAI's UploadPart object."""
    return {
        "id": part_id,
        "object": "upload.part",
        "created_at": int(part_time(part_id).timestamp()),
        "upload_id": upload_id,
    }
