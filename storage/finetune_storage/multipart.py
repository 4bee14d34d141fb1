"""Uploads in parts that no process completes, because it was killed.

They are invisible in listings of objects, and their parts are stored and billed until the upload is
aborted. An upload of a living process must never be aborted: the caller knows which ones are dead,
or they count as dead a day after their last part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from finetune_api.uris import S3Uri
from finetune_storage.boto_errors import CLIENT_ERRORS, error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# A part of 32 MiB takes minutes on the slowest link.
QUIET = timedelta(days=1)


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload in parts. Times are those of the store's clock; None if it does not show them."""

    key: str
    upload_id: str
    initiated: datetime | None
    now: datetime | None


IsDead = Callable[[UnfinishedUpload], bool]


class UnfinishedUploads:
    """The unfinished uploads below `prefix/`."""

    def __init__(self, client: S3Client, prefix: S3Uri) -> None:
        self._client = client
        self._bucket = prefix.bucket
        self._prefix = f"{prefix.key}/" if prefix.key else ""

    def find(self) -> list[UnfinishedUpload]:
        """All of them. Raises the exceptions of boto3."""
        pages = self._client.get_paginator("list_multipart_uploads")
        found: list[UnfinishedUpload] = []
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
            now = _clock(page)
            found += [
                UnfinishedUpload(item["Key"], item["UploadId"], item.get("Initiated"), now)
                for item in page.get("Uploads", [])
                if item["Key"].startswith(self._prefix)  # not every store filters
            ]
        return found

    def abort(self, is_dead: IsDead) -> int:
        """Abort the dead ones; returns their number. Raises the exceptions of boto3."""
        dead = [upload for upload in self.find() if is_dead(upload)]
        for upload in dead:
            try:
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id
                )
            except CLIENT_ERRORS as error:
                if error_code(error) != "NoSuchUpload":  # another process has aborted it
                    raise
        return len(dead)

    def is_quiet(self, upload: UnfinishedUpload) -> bool:
        """Whether its last part is older than a day. In doubt, it is not."""
        if not _is_old(upload.initiated, upload.now):
            return False
        try:
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id
            )
            times = [part.get("LastModified") for page in pages for part in page.get("Parts", [])]
        except CLIENT_ERRORS:
            return False
        return all(_is_old(time, upload.now) for time in times)


def _is_old(time: datetime | None, now: datetime | None) -> bool:
    return time is not None and now is not None and now - time > QUIET


def _clock(answer: Any) -> datetime | None:
    """The time of an answer. This machine's clock may be wrong."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError, TypeError):
        return None
