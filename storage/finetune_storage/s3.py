"""Access to objects in S3, on AWS or any compatible store.

Exceptions of boto3 become `StorageError`.
"""

from __future__ import annotations

import builtins
import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.uris import S3Uri
from finetune_storage import transfers
from finetune_storage.boto_errors import (
    CLIENT_ERRORS,
    bucket_missing,
    error_code,
    http_status,
    size_missing,
    storage_error,
)
from finetune_storage.connections import plain_endpoint
from finetune_storage.endpoints import prove_store
from finetune_storage.errors import AlreadyExists, StorageError, changed_error
from finetune_storage.messages import ProblemContext, StorageProblem, uploads_remain
from finetune_storage.multipart import IsDead, PartUpload, S3PartUpload, UnfinishedUploads
from finetune_storage.progress import ProgressCallback, ProgressMeter
from finetune_storage.reads import ObjectReads
from finetune_storage.stream import ObjectStream
from finetune_storage.versions import ObjectEntry, parse_entry
from finetune_storage.writes import (
    ABSENT,
    ConditionalWrite,
    is_refused_twice,
    put_object,
    unchanged,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOLDER_PAGES = 10  # of a listing, with 1,000 names each
MOST_IN_MEMORY, BLOCK_BYTES = 2**27, 2**20  # bytes of an object that is read as a whole


class Storage:
    """Reads and writes objects by address. Every method raises StorageError and is thread-safe."""

    def __init__(self, client: S3Client, *, proves_store: bool = False) -> None:
        """proves_store: whether the endpoint must be a store before an object of it is read."""
        self._client = client
        self._must_prove = proves_store
        self._has_warned = False
        self.endpoint = plain_endpoint(client.meta.endpoint_url)
        self.before_write = permit  # called before each write, which it refuses by an exception

    # --- reading ---------------------------------------------------------------------------------

    def read_bytes(self, uri: S3Uri) -> bytes:
        """The whole object, in memory. Raises FailureError for one that is larger than 128 MiB."""
        found = bytearray()
        with self.open_stream(uri) as stream:
            while block := stream.read(BLOCK_BYTES):
                found += block
                if len(found) > MOST_IN_MEMORY:
                    raise FailureError.of(
                        Reason.INVALID_DATA,
                        f"{uri} has more than {MOST_IN_MEMORY:,} bytes, which is no file of ours",
                        hint="see who wrote the object, and delete or replace it",
                    )
        return bytes(found)

    def read_version(self, uri: S3Uri) -> tuple[bytes, ObjectEntry]:
        """The whole object, in memory, and a version that `replace_bytes` can compare."""
        for is_last in (False, False, True):
            try:
                with ObjectStream(self._reads(uri, self.head(uri))) as stream:
                    return stream.read() or b"", stream.entry
            except StorageError as error:
                if error.problem is not StorageProblem.CHANGED or is_last:
                    raise
        raise AssertionError("the last try returns or raises")

    def read_range(
        self, uri: S3Uri, start: int, size: int, entry: ObjectEntry | None = None
    ) -> bytes:
        """`size` bytes of the object from `start` on, in memory; fewer if it ends before.

        entry: the version to read; None: any.
        """
        if not size:
            return b""
        with ObjectStream(self._reads(uri, entry), start, start + size) as stream:
            return stream.read() or b""

    def open_stream(self, uri: S3Uri, entry: ObjectEntry | None = None) -> io.RawIOBase:
        """The object's bytes as they arrive. A broken connection resumes where it broke.

        entry: the version to read; None: any. Raises StorageError if the object has another one.
        """
        return ObjectStream(self._reads(uri, entry))

    def _reads(self, uri: S3Uri, entry: ObjectEntry | None = None) -> ObjectReads:
        if self._must_prove:
            prove_store(self._client, uri, self.endpoint)
            self._must_prove = False
        return ObjectReads(
            *(self._client, uri, self.endpoint),
            head=self.head,
            errors=self._errors,
            entry=entry,
        )

    def head(self, uri: S3Uri) -> ObjectEntry:
        """Size and version. A missing bucket and a missing key have different codes."""
        try:
            answer = self._client.head_object(Bucket=uri.bucket, Key=uri.key)
        except CLIENT_ERRORS as error:
            raise self._head_error(error, uri) from error
        size = answer.get("ContentLength")
        if size is None:
            raise size_missing(uri, self.endpoint)
        return parse_entry(uri.key, answer, size)

    def exists(self, uri: S3Uri) -> bool:
        """Whether the object exists. A missing bucket is an error."""
        try:
            self.head(uri)
        except StorageError as error:
            if error.failure.code == Reason.DATA_NOT_FOUND:
                return False
            raise
        return True

    def list(self, prefix: S3Uri) -> list[ObjectEntry]:
        """Every object below `prefix/`, sorted by key. The keys are untrusted."""
        return [entry for page in self.pages(prefix) for entry in page]

    def pages(self, prefix: S3Uri) -> Iterator[builtins.list[ObjectEntry]]:
        """The same list in pages of at most 1,000 objects. Each is requested when it is needed."""
        start = f"{prefix.key}/" if prefix.key else ""
        paginator = self._client.get_paginator("list_objects_v2")
        pages = iter(paginator.paginate(Bucket=prefix.bucket, Prefix=start))
        while True:
            with self._errors(prefix):
                page = next(pages, None)
                if page is None:
                    return
                found = [
                    parse_entry(entry["Key"], entry, entry["Size"])
                    for entry in page.get("Contents", [])
                ]
            yield found

    def folders(self, prefix: S3Uri, start: str) -> builtins.list[str]:
        """The names directly below `prefix/` that begin with `start` and have objects below them.

        At most FOLDER_PAGES answers of the store are read. The names are untrusted.
        """
        whole = f"{prefix.key}/{start}" if prefix.key else start
        pages = self._client.get_paginator("list_objects_v2")
        with self._errors(prefix):
            answers = pages.paginate(Bucket=prefix.bucket, Prefix=whole, Delimiter="/")
            found = [
                item["Prefix"]
                for page in itertools.islice(answers, FOLDER_PAGES)
                for item in page.get("CommonPrefixes", [])
            ]
        length = len(whole) - len(start)
        return [name[length:].rstrip("/") for name in found if name.startswith(whole)]

    def download_file(
        self, uri: S3Uri, path: Path, progress: ProgressCallback | None = None
    ) -> None:
        """Download the object in parallel ranges. `path` appears only when the file is complete."""
        self.download_listed(uri, self.head(uri), path, progress)

    def download_listed(
        self, uri: S3Uri, entry: ObjectEntry, path: Path, progress: ProgressCallback | None = None
    ) -> None:
        """Download an object of a listing. uri: of the object.

        Raises StorageError if the object was replaced after it was listed.
        """
        transfers.download(self._reads(uri, entry), path, ProgressMeter(entry.size, progress))

    def download_prefix(
        self,
        uri: S3Uri,
        folder: Path,
        include: Sequence[str] = ("**",),
        progress: ProgressCallback | None = None,
    ) -> builtins.list[str]:
        """Download the objects below `uri/` to files below `folder`, several at once.

        include: patterns against the path below the prefix; `*` stays in one folder level, a
        pattern with `**` crosses them. Returns the relative paths, sorted. Raises StorageError
        (InvalidData) for a key that does not name a file below `folder`.
        """
        wanted = transfers.choose_files(self.list(uri), uri, folder, include)
        meter = ProgressMeter(sum(entry.size for entry in wanted.values()), progress)

        def fetch(relative: str) -> None:
            entry = wanted[relative]
            reads = self._reads(S3Uri(uri.bucket, entry.key), entry)
            transfers.download(reads, folder / relative, meter)

        transfers.fetch_in_parallel(fetch, wanted)
        return sorted(wanted)

    def needs_space(self, uri: S3Uri) -> bool:
        """Whether a downloaded copy of the object needs space on this machine."""
        return True

    # --- writing ---------------------------------------------------------------------------------

    def write_bytes(self, uri: S3Uri, data: bytes, *, only_if_absent: bool = False) -> None:
        """Write one object. With only_if_absent, raises AlreadyExists if it exists."""
        if only_if_absent:
            self.create_bytes(uri, data)
            return
        self.before_write()
        with self._errors(uri):
            put_object(self._client, uri, data, {})

    def create_bytes(self, uri: S3Uri, data: bytes) -> ObjectEntry:
        """Write an object that does not exist, and read it back. Returns its version.

        Raises AlreadyExists if it exists, or if another client creates it at the same time.
        """
        self.before_write()
        return ConditionalWrite(
            *(self._client, uri, self.endpoint),
            condition=ABSENT,
            is_met=lambda: not self.exists(uri),
            read=self.read_version,
            refusal=_already_exists(uri),
        ).put(data)

    def replace_bytes(self, uri: S3Uri, data: bytes, entry: ObjectEntry) -> ObjectEntry:
        """Replace this version of an object, and read the new one back. Returns its version.

        Raises StorageError (problem CHANGED) if the object has another version.
        """
        self.before_write()
        return ConditionalWrite(
            *(self._client, uri, self.endpoint),
            condition=unchanged(entry),
            is_met=lambda: self._has_version(uri, entry),
            read=self.read_version,
            refusal=changed_error(str(uri), self.endpoint),
        ).put(data)

    def has_conditional_writes(self, uri: S3Uri, data: bytes) -> bool:
        """Whether the store refuses to create an object that exists. data: what it contains."""
        with self._errors(uri):
            return is_refused_twice(self._client, uri, data)

    def _has_version(self, uri: S3Uri, entry: ObjectEntry) -> bool:
        """Whether the object has this version. One that the store shows in two ways has."""
        try:
            self.read_range(uri, 0, 1, entry)
        except StorageError as error:
            if error.problem in {StorageProblem.CHANGED, StorageProblem.OBJECT_MISSING}:
                return False
            raise
        return True

    def upload_file(self, path: Path, uri: S3Uri, progress: ProgressCallback | None = None) -> None:
        """Upload the file, in parts if it is large. Replaces an existing object."""
        self.before_write()
        meter = ProgressMeter(path.stat().st_size, progress)
        with self._errors(uri):
            transfers.upload(self._client, path, uri, meter)

    def upload_parts(self, uri: S3Uri) -> PartUpload:
        """An upload of bytes that are not in a file. It begins with its first part."""
        self.before_write()
        return S3PartUpload(self._client, uri, errors=self._errors, exists=self.exists)

    def delete(self, uri: S3Uri) -> None:
        """Delete one object. A missing object is not an error."""
        with self._errors(uri):
            self._client.delete_object(Bucket=uri.bucket, Key=uri.key)

    def abort_uploads(self, prefix: S3Uri, is_dead: IsDead | None = None) -> int:
        """Abort unfinished uploads in parts below `prefix/`. Returns how many there were.

        is_dead: which ones; None: those whose last part is older than a day. A store that does not
        list them, or a missing permission, is a warning, once for each client.
        """
        uploads = UnfinishedUploads(self._client, prefix)
        try:
            count = uploads.abort(is_dead or uploads.is_quiet)
        except CLIENT_ERRORS as error:
            if not self._has_warned:
                self._has_warned = True
                print(f"warning: {uploads_remain(prefix, error_code(error))}", flush=True)
            return 0
        if count:
            print(f"aborted unfinished uploads below {prefix}: {count}", flush=True)
        return count

    # --- errors ----------------------------------------------------------------------------------

    @contextmanager
    def _errors(self, uri: S3Uri) -> Iterator[None]:
        try:
            yield
        except CLIENT_ERRORS as error:
            # transfers begin with a HEAD request, whose answer has no body and thus no code
            if error_code(error) in {"404", "403", "400"}:
                raise self._head_error(error, uri) from error
            raise storage_error(error, uri, self.endpoint) from error

    def _head_error(self, error: Exception, uri: S3Uri) -> StorageError:
        """The reason of a HEAD request's bare status, from a second request with a body."""
        status = http_status(error)
        try:
            if status == HTTPStatus.NOT_FOUND:
                self._client.head_bucket(Bucket=uri.bucket)
            elif status in {HTTPStatus.FORBIDDEN, HTTPStatus.BAD_REQUEST}:
                self._client.get_object(Bucket=uri.bucket, Key=uri.key, Range="bytes=0-0")
        except CLIENT_ERRORS as second:
            if status == HTTPStatus.NOT_FOUND:
                if http_status(second) == HTTPStatus.NOT_FOUND:
                    return bucket_missing(uri, self.endpoint)
                return storage_error(error, uri, self.endpoint)
            return storage_error(second, uri, self.endpoint)
        return storage_error(error, uri, self.endpoint)


def permit() -> None:
    """The usual check before a write."""


def _already_exists(uri: S3Uri) -> AlreadyExists:
    return AlreadyExists.from_problem(StorageProblem.ALREADY_EXISTS, ProblemContext(str(uri)))
