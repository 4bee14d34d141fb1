"""GET requests of one object that all return the same version of it.

Every request after the first one, and the first one as well if the version is known from a HEAD
request or a listing, has If-Match. Every answer is compared with the version, because some stores
ignore If-Match, have no ETags, or have weak ones, which If-Match never matches.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from finetune_api.uris import S3Uri
from finetune_storage.boto_errors import (
    CLIENT_ERRORS,
    http_status,
    size_missing,
    storage_error,
)
from finetune_storage.errors import StorageError, changed_error
from finetune_storage.versions import ObjectEntry, parse_entry, whole_size

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

TRIES = 4  # more than the answers that show that a store's ETags are unusable
SKIPPED_BYTES = 1024 * 1024  # at once, from a store that ignores ranges

# The answers of stores to If-Match: of those that support it, and of those that refuse it.
_REFUSALS = {
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_IMPLEMENTED,
}


class ObjectReads:
    """The reads of one version of an object. Thread-safe once the version is known."""

    def __init__(
        self,
        client: S3Client,
        uri: S3Uri,
        endpoint: str,
        *,
        head: Callable[[S3Uri], ObjectEntry],
        errors: Callable[[S3Uri], AbstractContextManager[None]],
        entry: ObjectEntry | None = None,
    ) -> None:
        """errors: converts the exceptions of boto3. entry: the version to read; None: any."""
        self._client = client
        self.uri = uri
        self._endpoint = endpoint
        self._head = head
        self._errors = errors
        self._entry = entry
        self._is_conditional = True

    @property
    def entry(self) -> ObjectEntry:
        """The version. It is known from the first request on."""
        assert self._entry is not None, "nothing was read yet"
        return self._entry

    def get(self, start: int = 0, stop: int | None = None) -> StreamingBody:
        """The bytes from `start` on, before `stop`.

        Raises StorageError, also if the object has changed.
        """
        for _ in range(TRIES):
            known = self._entry
            with self._errors(self.uri):
                answer = self._request(start, stop, known)
            if answer is None:
                continue  # without If-Match
            found = self._parse(answer, known)
            if known is None:
                self._entry = found
            elif not known.is_same_as(found):
                answer["Body"].close()
                self._examine(known, found)
                continue
            return _body_from(start, answer)
        raise changed_error(str(self.uri), self._endpoint)

    def converted(self, error: Exception) -> StorageError:
        """The StorageError for a body that cannot be read."""
        return storage_error(error, self.uri, self._endpoint)

    def _request(
        self, start: int, stop: int | None, known: ObjectEntry | None
    ) -> GetObjectOutputTypeDef | None:
        """The answer; None if the store refuses If-Match although the object is the same."""
        request: dict[str, Any] = {"Bucket": self.uri.bucket, "Key": self.uri.key}
        if start or stop is not None:
            request["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        etag = known.strong_etag if known and self._is_conditional else ""
        if not etag:
            return self._client.get_object(**request)
        try:
            return self._client.get_object(**request, IfMatch=f'"{etag}"')
        except CLIENT_ERRORS as error:
            if http_status(error) not in _REFUSALS:
                raise
            assert known is not None
            self._examine(known)
            self._is_conditional = False
            return None

    def _parse(self, answer: GetObjectOutputTypeDef, known: ObjectEntry | None) -> ObjectEntry:
        size = whole_size(answer)
        if size is None:
            if known is None:
                raise size_missing(self.uri, self._endpoint)
            size = known.size
        return parse_entry(self.uri.key, answer, size)

    def _examine(self, known: ObjectEntry, found: ObjectEntry | None = None) -> None:
        """Raise StorageError if the object has changed. The store's ETags may be unusable instead.

        They differ from request to request, or those of its listings or GET requests (`found`)
        differ from the others.
        """
        now = self._head(self.uri)
        if known.is_same_as(now):
            if found is not None:
                if not known.is_as_old_as(found):
                    raise changed_error(str(self.uri), self._endpoint)
                self._entry = replace(known, etag="")
            return
        if known.is_as_old_as(now):
            again = self._head(self.uri)
            if again.etag != now.etag and again.is_as_old_as(now):
                self._entry = replace(known, etag="")
                return
            if (listed := self._listed()) is not None and known.is_same_as(listed):
                self._entry = now
                return
        raise changed_error(str(self.uri), self._endpoint)

    def _listed(self) -> ObjectEntry | None:
        try:
            found = self._client.list_objects_v2(
                Bucket=self.uri.bucket, Prefix=self.uri.key, MaxKeys=1
            )
        except CLIENT_ERRORS:
            return None  # without the permission to list, the object counts as changed
        items = [it for it in found.get("Contents", []) if it["Key"] == self.uri.key]
        return parse_entry(self.uri.key, items[0], items[0]["Size"]) if items else None


def _body_from(start: int, answer: GetObjectOutputTypeDef) -> StreamingBody:
    """The body from `start` on, also from a store that ignores ranges."""
    body = answer["Body"]
    if answer["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.OK:
        while start and (block := body.read(min(start, SKIPPED_BYTES))):
            start -= len(block)
    return body
