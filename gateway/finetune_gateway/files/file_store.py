"""The uploaded files of one namespace: `<files>/<namespace>/files/<file id>/<purpose>/<name>`.

The key tells everything that a list shows, so that one listing of the store suffices and replicas
share no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.uris import S3Uri


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file, or a file that a FineTune published."""

    id: str
    purpose: str
    name: str
    size: int  # bytes
    created_at: datetime
    uri: S3Uri
