"""Uploads in parts: those of this process, and those that a killed process left behind.

Unfinished uploads are invisible in listings of objects, and their parts are stored and billed until
the upload is aborted. An upload of a living process must never be aborted: the caller knows which
ones are dead, or they count as dead a day after their last part.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from finetune_api.uris import S3Uri
from finetune_storage.boto_errors import CLIENT_ERRORS, error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LEAST_PART_BYTES = 5 * 1024 * 1024  # S3 refuses smaller parts, except for the last one
# A part of 32 MiB takes minutes on the slowest link.
QUIET = timedelta(days=1)
_CHECKSUM = "ChecksumCRC32"  # in the answers of stores that check it


class PartUpload(Protocol):
    """An object that is written in parts, one after the other, and appears when it is complete.

    Every method raises StorageError. After one of them has, only `abort` may be called.
    """

    def add(self, data: bytes) -> None:
        """Add a part. All but the last one must have at least LEAST_PART_BYTES."""
        ...

    def copy(self, source: S3Uri) -> None:
        """Add an object of the same store as a part, which the store copies itself."""
        ...

    def complete(self) -> None:
        """Let the object appear, or replace it. At least one part must have been added."""
        ...

    def abort(self) -> None:
        """Delete the parts, after the end of a call in another thread. No part can be added then.

        Has no effect on a complete object, and none the second time.
        """
        ...


class S3PartUpload:
    """A PartUpload that S3 assembles. It begins with its first part."""

    def __init__(
        self,
        client: S3Client,
        uri: S3Uri,
        *,
        errors: Callable[[S3Uri], AbstractContextManager[None]],
        exists: Callable[[S3Uri], bool],
    ) -> None:
        """errors: converts the exceptions of boto3."""
        self._client = client
        self._uri = uri
        self._errors = errors
        self._exists = exists
        self._lock = Lock()
        self._upload_id: str | None = None
        self._has_ended = False
        self._parts: list[Any] = []
        # Many stores refuse the headers of checksums.
        config = client.meta.config.request_checksum_calculation  # type: ignore[attr-defined]
        self._has_checksums = config == "when_supported"

    def add(self, data: bytes) -> None:
        with self._lock, self._errors(self._uri):
            self._keep(self._client.upload_part(**self._next_part(), Body=data))

    def copy(self, source: S3Uri) -> None:
        with self._lock, self._errors(self._uri):
            place: Any = {"Bucket": source.bucket, "Key": source.key}
            answer = self._client.upload_part_copy(**self._next_part(), CopySource=place)
            self._keep(answer["CopyPartResult"])

    def complete(self) -> None:
        with self._lock:
            try:
                with self._errors(self._uri):
                    self._client.complete_multipart_upload(
                        **self._upload(), MultipartUpload={"Parts": self._parts}
                    )
            except Exception as error:
                # The answer to our own request may have been lost, and the request repeated.
                cause = error.__cause__
                is_gone = isinstance(cause, CLIENT_ERRORS) and error_code(cause) == "NoSuchUpload"
                if not is_gone or not self._exists(self._uri):
                    raise
            self._has_ended = True

    def abort(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
            if self._upload_id is None:
                return
            with self._errors(self._uri):
                try:
                    self._client.abort_multipart_upload(**self._upload())
                except CLIENT_ERRORS as error:
                    if error_code(error) != "NoSuchUpload":
                        raise

    def _next_part(self) -> Any:
        """The arguments that name the next part. The first one begins the upload."""
        assert not self._has_ended, "the upload has ended"
        if self._upload_id is None:
            checksums: Any = {"ChecksumAlgorithm": "CRC32"} if self._has_checksums else {}
            answer = self._client.create_multipart_upload(
                Bucket=self._uri.bucket, Key=self._uri.key, **checksums
            )
            self._upload_id = answer["UploadId"]
        return {**self._upload(), "PartNumber": len(self._parts) + 1}

    def _upload(self) -> Any:
        assert self._upload_id is not None, "the upload has no part"
        return {"Bucket": self._uri.bucket, "Key": self._uri.key, "UploadId": self._upload_id}

    def _keep(self, answer: Any) -> None:
        part = {"ETag": answer["ETag"], "PartNumber": len(self._parts) + 1}
        if answer.get(_CHECKSUM):
            part[_CHECKSUM] = answer[_CHECKSUM]
        self._parts.append(part)


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
