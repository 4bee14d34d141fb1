"""Writes of one object that depend on what is there, on S3 and on stores without such writes.

Every such write is checked before it and read back after it, because some stores ignore the headers
If-None-Match and If-Match, and others refuse them. On such a store, two clients that write at the
same moment can both believe that their object stays; the one that reads it later notices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from finetune_api.uris import S3Uri
from finetune_storage.boto_errors import CLIENT_ERRORS, http_status, storage_error
from finetune_storage.errors import StorageError
from finetune_storage.messages import StorageProblem
from finetune_storage.versions import ObjectEntry

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ABSENT: Mapping[str, str] = {"IfNoneMatch": "*"}
TRIES = 3  # while another client writes the same key


def unchanged(entry: ObjectEntry) -> Mapping[str, str]:
    """The condition that the object still has this version; none without a strong ETag."""
    return {"IfMatch": f'"{entry.strong_etag}"'} if entry.strong_etag else {}


class ConditionalWrite:
    """One write. `is_met` reads whether its condition is met."""

    def __init__(
        self,
        client: S3Client,
        uri: S3Uri,
        endpoint: str,
        *,
        condition: Mapping[str, str],
        is_met: Callable[[], bool],
        read: Callable[[S3Uri], tuple[bytes, ObjectEntry]],
        refusal: StorageError,
    ) -> None:
        """condition: arguments of put_object. refusal: raised if the condition is not met."""
        self._client = client
        self._uri = uri
        self._endpoint = endpoint
        self._condition = condition
        self._is_met = is_met
        self._read = read
        self._refusal = refusal

    def put(self, data: bytes) -> ObjectEntry:
        """Write the object, and read it back. Returns its version. Raises StorageError."""
        if not self._is_met():
            raise self._refusal
        for _ in range(TRIES):
            if self._is_put(data):
                break
        found, entry = self._read(self._uri)
        if found != data:
            raise self._refusal
        return entry

    def _is_put(self, data: bytes) -> bool:
        """Whether the store has accepted the write; False to try again."""
        try:
            put_object(self._client, self._uri, data, self._condition)
        except CLIENT_ERRORS as error:
            status = http_status(error)
            if status == HTTPStatus.PRECONDITION_FAILED or (
                status == HTTPStatus.NOT_FOUND and "IfMatch" in self._condition
            ):
                # the answer to our own write may have been lost, and the write repeated
                if _was_repeated(error) and self._read(self._uri)[0] == data:
                    return True
                if self._is_met():  # the store compares other ETags than it shows
                    return self._is_put_plainly(data)
                raise self._refusal from error
            if status == HTTPStatus.CONFLICT:
                return False
            if self._condition and is_unsupported(error):
                return self._is_put_plainly(data)
            raise storage_error(error, self._uri, self._endpoint) from error
        return True

    def _is_put_plainly(self, data: bytes) -> bool:
        if not self._is_met():
            raise self._refusal
        try:
            put_object(self._client, self._uri, data, {})
        except CLIENT_ERRORS as error:
            raise storage_error(error, self._uri, self._endpoint) from error
        return True


def is_refused_twice(client: S3Client, uri: S3Uri, data: bytes) -> bool:
    """Whether the store refuses to create an object that exists and contains `data`.

    Raises the exceptions of boto3 for any other problem.
    """
    try:
        put_object(client, uri, data, ABSENT)
    except CLIENT_ERRORS as error:
        if http_status(error) in {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT}:
            return True
        if is_unsupported(error):
            return False
        raise
    return False


def is_unsupported(error: Exception) -> bool:
    """Whether a store may refuse the condition itself, and not the rest of the request."""
    status = http_status(error)
    if status == HTTPStatus.BAD_REQUEST:
        found = storage_error(error, S3Uri("any", ""), "")
        return found.problem is StorageProblem.REFUSED
    return status == HTTPStatus.NOT_IMPLEMENTED


def put_object(client: S3Client, uri: S3Uri, data: bytes, condition: Mapping[str, str]) -> None:
    """Write one object in one request. condition: arguments of put_object."""
    client.put_object(Bucket=uri.bucket, Key=uri.key, Body=data, **condition)  # type: ignore[arg-type]


def _was_repeated(error: Exception) -> bool:
    metadata = getattr(error, "response", {}).get("ResponseMetadata", {})
    return int(metadata.get("RetryAttempts") or 0) > 0
