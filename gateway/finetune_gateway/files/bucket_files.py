"""The uploaded files of one namespace: `<files>/<namespace>/files/<file id>/<purpose>/<name>`.

The key has everything that a list shows, so that one listing of the store suffices and replicas
share no state. The store is S3, or a folder on a laptop.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from finetune_api.finetune import FineTune
from finetune_api.uris import S3Uri
from finetune_gateway.files.artifacts import PublishedFiles
from finetune_gateway.files.content import Content, open_content
from finetune_gateway.files.file_names import is_safe_name, safe_name
from finetune_gateway.files.file_upload import BoundedUpload, FileUpload, too_large
from finetune_gateway.files.inspection import Inspection
from finetune_gateway.files.object_upload import Inspect, ObjectUpload
from finetune_gateway.files.quota import Quota, Usage
from finetune_gateway.files.sweep import Sweep
from finetune_gateway.files.workers import Workers, is_missing, store_problems
from finetune_gateway.settings import Settings
from finetune_gateway.wire.file_objects import ARTIFACT_NAMES, RESULTS, StoredFile, parse_key
from finetune_gateway.wire.ids import Artifact, file_time, is_file_id, new_file_id
from finetune_gateway.wire.timestamps import parse_time
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry
from finetune_web.problems import Problem, invalid

logger = logging.getLogger(__name__)

PURPOSE = "fine-tune"  # of uploaded files
MOST_OBJECTS = 50_000  # of a namespace, with those of unfinished uploads
UPLOADS_AT_ONCE = 12  # each with two parts in memory at most; further ones wait
RESULTS_BYTES = 2**26  # of a results.csv that is read as a whole
KNOWN_SECONDS, KNOWN_FILES = 30.0, 1024  # of the files that lists of FineTunes show


class BucketFiles:
    """The files. Every method raises Problem."""

    def __init__(
        self,
        storage: Storage,
        workers: Workers,
        settings: Settings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises ValueError if the settings have an invalid address."""
        self.storage = storage
        self.workers = workers
        self.limits = settings.data
        self.now = now
        self.root = settings.files_root
        self.space = S3Uri.parse(settings.files).child(settings.namespace)
        self.quota = Quota(settings.files_quota_bytes, MOST_OBJECTS, self._measure)
        self._sweep = Sweep(storage, workers, self.space, now)
        self._published = PublishedFiles(settings.output, settings.namespace)
        self._known: dict[S3Uri, tuple[float, StoredFile | None]] = {}
        self._places = asyncio.Semaphore(UPLOADS_AT_ONCE)

    # --- uploaded files --------------------------------------------------------------------------

    async def list(self) -> builtins.list[StoredFile]:
        """The uploaded files, oldest first. Objects with other keys are not files."""
        with store_problems():
            return await self.workers.read(self._list)

    async def find(self, file_id: str) -> StoredFile | None:
        """The uploaded file with this id; None if there is none, whatever the text is."""
        if not is_file_id(file_id):
            return None
        with store_problems():
            return await self.workers.read(self._find, file_id)

    async def find_by_address(self, uri: S3Uri) -> StoredFile | None:
        """The uploaded file at this address, as it was at most half a minute ago."""
        key = parse_key(self.root, uri)
        if key is None:
            return None
        known = self._known.get(uri)
        if known is not None and time.monotonic() - known[0] < KNOWN_SECONDS:
            return known[1]
        found = await self.find(key.id)
        if found is not None and found.uri != uri:
            found = None
        if len(self._known) >= KNOWN_FILES:
            self._known.clear()
        self._known[uri] = (time.monotonic(), found)
        return found

    async def admit(self, least_bytes: int, param: str = "file") -> None:
        """Raise Problem if a file of this size has no room. Call it before `uploading`.

        param: the field of the request that has the size.
        """
        if least_bytes > self.limits.max_file_bytes:
            raise too_large(self.limits.max_file_bytes, param)
        await self._sweep.run_if_due()
        await self.quota.admit(least_bytes)

    @asynccontextmanager
    async def uploading(self, filename: str) -> AsyncIterator[FileUpload]:
        """A new file, of which nothing remains unless it is completed.

        filename: as the client has it.
        """
        most_bytes = self.limits.max_file_bytes
        file_id, name = new_file_id(self.now()), safe_name(filename)
        uri, at = self.uri(file_id, name), file_time(file_id)
        inspection = Inspection(name, self.limits)
        async with self.storing(uri, most_bytes, too_large(most_bytes), inspection.feed) as target:
            yield FileUpload(StoredFile(file_id, PURPOSE, name, 0, at, uri), inspection, target)

    @asynccontextmanager
    async def storing(
        self, uri: S3Uri, most_bytes: int, refusal: Problem, inspect: Inspect | None = None
    ) -> AsyncIterator[BoundedUpload]:
        """An object that arrives now. It waits for its turn, and nothing remains without its end.

        refusal: of an object with more than `most_bytes`. inspect: gets the bytes in a thread.
        """
        async with self.turn():
            target = ObjectUpload(self.storage, self.workers, uri, inspect)
            upload = BoundedUpload(target, self.quota, most_bytes, refusal)
            try:
                yield upload
            finally:
                await upload.close()

    def turn(self) -> AbstractAsyncContextManager[None]:
        """The right to have parts of an object in memory, which bounds the memory."""
        return self._places

    async def delete(self, file: StoredFile) -> None:
        """Delete an uploaded file. One that is gone is not an error."""
        self._known.pop(file.uri, None)
        with store_problems():
            await self.workers.write(self.storage.delete, file.uri)
        self.quota.forget()
        logger.info("deleted %s", file.uri)

    def uri(self, file_id: str, name: str) -> S3Uri:
        """The address of an uploaded file."""
        return self.root.child(file_id, PURPOSE, name)

    # --- what FineTunes publish ------------------------------------------------------------------

    def artifact_uri(self, artifact: Artifact, finetune: FineTune) -> S3Uri | None:
        """The address of a published file. None if it is outside the chart's output."""
        return self._published.address(artifact, finetune)

    async def find_artifact(self, artifact: Artifact, finetune: FineTune) -> StoredFile | None:
        """The published file. None if it does not exist, or not yet."""
        uri = self.artifact_uri(artifact, finetune)
        entry = None if uri is None else await self._head(uri)
        if uri is None or entry is None:
            return None
        name = ARTIFACT_NAMES[artifact.kind]
        at = parse_time(entry.modified) or self.now()
        return StoredFile(artifact.id, RESULTS, name, entry.size, at, uri)

    async def read_results(self, finetune: FineTune) -> bytes | None:
        """results.csv. None if there is none yet, or if it is outside the chart's output."""
        artifact = Artifact("results", finetune.metadata.name)
        uri = self.artifact_uri(artifact, finetune)
        entry = None if uri is None else await self._head(uri)
        if uri is None or entry is None:
            return None
        if entry.size > RESULTS_BYTES:
            raise invalid(
                f"The results have {entry.size:,} bytes, which is too much for a list of events. "
                f"Download the file {artifact.id} instead.",
                code="results_too_large",
            )
        with store_problems():
            data, _ = await self.workers.read(self.storage.read_version, uri)
            return data

    async def open(self, file: StoredFile) -> Content | None:
        """The content of an uploaded or published file; None if it has been deleted."""
        return await open_content(self.storage, self.workers, file.uri)

    # --- calls in threads ------------------------------------------------------------------------

    async def _head(self, uri: S3Uri) -> ObjectEntry | None:
        with store_problems():
            try:
                return await self.workers.read(self.storage.head, uri)
            except StorageError as error:
                if is_missing(error):
                    return None
                raise

    def _list(self) -> builtins.list[StoredFile]:
        found: dict[str, StoredFile] = {}
        seen = 0
        for page in self.storage.pages(self.root):
            for entry in page:
                file = self._parse(entry)
                if file is not None:
                    found.setdefault(file.id, file)
            seen += len(page)
            if seen >= MOST_OBJECTS:
                logger.warning(
                    "%s has more than %s objects; the rest is not shown", self.root, seen
                )
                break
        return sorted(found.values(), key=lambda file: file.id)

    def _find(self, file_id: str) -> StoredFile | None:
        page = next(self.storage.pages(self.root.child(file_id)), [])
        return next((file for entry in page if (file := self._parse(entry)) is not None), None)

    def _parse(self, entry: ObjectEntry) -> StoredFile | None:
        uri = S3Uri(self.root.bucket, entry.key)
        key = parse_key(self.root, uri)
        if key is None or key.purpose != PURPOSE or not is_safe_name(key.name):
            return None
        return StoredFile(key.id, key.purpose, key.name, entry.size, file_time(key.id), uri)

    async def _measure(self) -> Usage:
        with store_problems():
            return await self.workers.read(self._sum)

    def _sum(self) -> Usage:
        size = objects = 0
        for page in self.storage.pages(self.space):
            size += sum(entry.size for entry in page)
            objects += len(page)
            if objects >= MOST_OBJECTS:
                break
        return Usage(size, objects)
