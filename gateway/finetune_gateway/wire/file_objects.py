"""File objects: uploaded files, and the files that FineTunes publish."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file, or a file that a FineTune published."""

    id: str
    purpose: str
    name: str
    size: int  # bytes
    created_at: datetime
    uri: S3Uri


def file_object(file: StoredFile) -> JsonObject:
    """OpenAI's File object. An uploaded file is complete and checked once it exists."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
