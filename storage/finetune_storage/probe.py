"""What a store can do, found out with one small object."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from finetune_api.uris import S3Uri
from finetune_storage.boto_errors import CLIENT_ERRORS, error_code, http_status
from finetune_storage.multipart import UnfinishedUploads
from finetune_storage.s3 import Storage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONTENT = b"written by finetune doctor\n"
OTHER_ETAG = '"00000000000000000000000000000000"'


@dataclass(frozen=True)
class Weakness:
    """A part of S3 that a store lacks, and what is weaker for that reason."""

    problem: str
    remedy: str


NO_ETAGS = Weakness(
    "the store has no ETags that identify the bytes of an object, so that base models and "
    "checkpoints are distinguished by their size and time only, and training files are read twice",
    "do not replace files of a base model within a second, or use a store with ETags",
)
NO_CONDITIONAL_READS = Weakness(
    "the store does not support If-Match for reads, so that a file that is replaced while it is "
    "read is recognized only afterwards",
    "do not replace files that a FineTune reads",
)
NO_CONDITIONAL_WRITES = Weakness(
    "the store does not support If-None-Match for writes, so that two pods of one rank are kept "
    "from publishing together only by the times between their writes",
    "use a store with conditional writes, or check that no node is cut off from the API server",
)
NO_MULTIPART_LISTING = (
    "the unfinished uploads of killed pods cannot be listed ({code}), so that they keep their space"
)
MULTIPART_REMEDY = (
    "allow s3:ListBucketMultipartUploads, or add a lifecycle rule to the bucket that aborts "
    "incomplete multipart uploads"
)


def find_weaknesses(storage: Storage, uri: S3Uri) -> list[Weakness]:
    """Write, read, and delete an object at `uri`, which does not exist.

    Raises StorageError if it cannot be written, read, or deleted.
    """
    client = storage._client
    storage.write_bytes(uri, CONTENT)
    try:
        entry = storage.head(uri)
        again = storage.read_version(uri)[1]
        found: list[Weakness] = []
        if not (entry.strong_etag and entry.strong_etag == again.strong_etag):
            found.append(NO_ETAGS)
        if not _has_conditional_reads(client, uri):
            found.append(NO_CONDITIONAL_READS)
        if not storage.has_conditional_writes(uri, CONTENT):
            found.append(NO_CONDITIONAL_WRITES)
    finally:
        storage.delete(uri)
    try:
        UnfinishedUploads(client, uri).find()
    except CLIENT_ERRORS as error:
        problem = NO_MULTIPART_LISTING.format(code=error_code(error))
        found.append(Weakness(problem, MULTIPART_REMEDY))
    return found


def _has_conditional_reads(client: S3Client, uri: S3Uri) -> bool:
    """Whether the store refuses to read another version than this one."""
    try:
        client.get_object(Bucket=uri.bucket, Key=uri.key, IfMatch=OTHER_ETAG)["Body"].close()
    except CLIENT_ERRORS as error:
        return http_status(error) == HTTPStatus.PRECONDITION_FAILED
    return False
