"""Uploads in several requests: `<files>/<namespace>/uploads/<upload id>/`.

    upload.json     what the first request says
    parts/<id>      the parts
    outcome.json    written once: the parts that make up the file, or that it is cancelled

The outcome decides between requests that complete and cancel at the same time. A request that is
repeated after a lost answer, or after a crash of the gateway, does what remains to be done.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from finetune_api.uris import S3Uri
from finetune_api.wire import Stored
from finetune_gateway.files.bucket_files import BucketFiles
from finetune_gateway.files.file_names import has_lines
from finetune_gateway.files.file_upload import BoundedUpload, too_large
from finetune_gateway.files.inspection import Inspection
from finetune_gateway.files.joining import Joining
from finetune_gateway.files.workers import store_problems
from finetune_gateway.metrics import UPLOAD_BYTES
from finetune_gateway.wire.file_objects import StoredFile
from finetune_gateway.wire.uploads import (
    UploadOutcome,
    UploadSession,
    file_id_of,
    is_expired,
    is_part_id,
    is_upload_id,
    new_part_id,
    new_upload_id,
)
from finetune_storage.errors import AlreadyExists
from finetune_storage.versions import ObjectEntry
from finetune_web.problems import Problem, invalid, unavailable

logger = logging.getLogger(__name__)

MOST_BYTES = 8 * 2**30  # of an upload
PART_BYTES = 64 * 2**20
MOST_PARTS = 10_000
JSON_BYTES = 2**20  # of upload.json and outcome.json

S = TypeVar("S", bound=Stored)


@dataclass(frozen=True)
class UploadState:
    """An upload as the store has it."""

    id: str
    session: UploadSession
    outcome: UploadOutcome | None = None
    parts: dict[str, ObjectEntry] = field(default_factory=dict)  # by their ids

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.parts.values())


class UploadSessions:
    """The uploads of one namespace. Every method raises Problem."""

    def __init__(self, files: BucketFiles) -> None:
        self._files = files
        self._storage = files.storage
        self._workers = files.workers

    async def create(self, session: UploadSession) -> UploadState:
        """Begin an upload of a file with a stored name."""
        if session.bytes > MOST_BYTES:
            raise too_large(MOST_BYTES, "bytes")
        await self._files.admit(session.bytes, "bytes")
        upload_id = new_upload_id(self._files.now())
        uri = self._folder(upload_id).child("upload.json")
        with store_problems():
            await self._workers.write(self._storage.write_bytes, uri, session.to_json().encode())
        return UploadState(upload_id, session)

    async def find(self, upload_id: str) -> UploadState | None:
        """None if there is none, whatever the text is."""
        if not is_upload_id(upload_id):
            return None
        with store_problems():
            return await self._workers.read(self._load, upload_id)

    @asynccontextmanager
    async def adding(self, state: UploadState) -> AsyncIterator[tuple[str, BoundedUpload]]:
        """The id of a new part, and where its bytes go."""
        self._refuse_end(state)
        # A client repeats a part whose answer was lost, so that there can be more than one needs.
        room = 2 * state.session.bytes + PART_BYTES - state.size
        if room <= 0 or len(state.parts) >= MOST_PARTS:
            raise invalid(
                f"The upload has {len(state.parts):,} parts with {state.size:,} bytes, but it is "
                f"for a file of {state.session.bytes:,} bytes. Complete or cancel it.",
                "data",
                "too_many_parts",
            )
        most_bytes = min(PART_BYTES, room)
        refusal = invalid(
            f"The part has more than {most_bytes:,} bytes, which is the limit. Use smaller parts.",
            "data",
            "part_too_large",
        )
        part_id = new_part_id(self._files.now())
        uri = self._folder(state.id).child("parts", part_id)
        async with self._files.storing(uri, most_bytes, refusal) as upload:
            yield part_id, upload

    async def complete(
        self, state: UploadState, part_ids: Sequence[str], md5: str | None
    ) -> StoredFile:
        """Make a file of the parts, or find the one that was made of them before.

        md5: of the file, in hexadecimal; None: unknown.
        """
        outcome = state.outcome
        if outcome is None:
            self._refuse_end(state)
            await self._check(state, part_ids, md5)
            outcome = await self._end(
                state, UploadOutcome(status="completed", part_ids=list(part_ids))
            )
        if outcome.status == "cancelled":
            raise _has_ended(state.id, "has been cancelled")
        if outcome.part_ids != list(part_ids):
            raise _has_ended(state.id, "has been completed with other parts")
        return await self._become_file(state, outcome.part_ids)

    async def cancel(self, state: UploadState) -> None:
        """Delete the parts. An upload that was cancelled before is not an error."""
        outcome = state.outcome or await self._end(state, UploadOutcome(status="cancelled"))
        if outcome.status == "completed":
            raise _has_ended(state.id, "has been completed already")
        await self._delete_parts(state)

    # --- the file --------------------------------------------------------------------------------

    async def _check(self, state: UploadState, part_ids: Sequence[str], md5: str | None) -> None:
        """Raise Problem unless the parts are the file that the upload is for."""
        joining, size = self._join(state, part_ids)
        wanted = state.session.bytes
        if size != wanted:
            raise invalid(
                f"The parts have {size:,} bytes together, but the upload is for {wanted:,} bytes.",
                "part_ids",
                "bytes_mismatch",
            )
        if not has_lines(state.session.filename) and md5 is None:
            return
        inspection = Inspection(state.session.filename, self._files.limits, "md5")
        await joining.read(inspection.feed)
        await self._workers.read(inspection.finish)
        if md5 not in {None, inspection.digest}:
            raise invalid(
                f"The parts have the MD5 digest {inspection.digest}, which is not the one of the "
                "request. Upload the file again.",
                "md5",
                "md5_mismatch",
            )

    async def _become_file(self, state: UploadState, part_ids: Sequence[str]) -> StoredFile:
        file = await self._files.find(file_id_of(state.id))
        if file is None:
            try:
                joining, _ = self._join(state, part_ids)
                uri = self._files.uri(file_id_of(state.id), state.session.filename)
                async with self._files.turn():
                    await joining.write(uri)
            except Problem:  # another request can have joined the parts, and deleted them
                file = await self._files.find(file_id_of(state.id))
                if file is None:
                    raise
            else:
                UPLOAD_BYTES.inc(state.session.bytes)
                file = await self._files.find(file_id_of(state.id))
        if file is None:
            raise unavailable("The store does not show the file yet. Try again.")
        await self._delete_parts(state)
        logger.info("completed %s: %s", state.id, file.uri)
        return file

    def _join(self, state: UploadState, part_ids: Sequence[str]) -> tuple[Joining, int]:
        """The joined parts, and their size."""
        missing = next((part_id for part_id in part_ids if part_id not in state.parts), None)
        if missing is not None:
            raise invalid(
                f"The upload {state.id} has no part {missing[:100]!r}, or its file was deleted.",
                "part_ids",
                "part_not_found",
            )
        entries = [state.parts[part_id] for part_id in part_ids]
        joining = Joining(self._storage, self._workers, self._files.root.bucket, entries)
        return joining, sum(entry.size for entry in entries)

    async def _delete_parts(self, state: UploadState) -> None:
        def delete() -> None:
            for entry in state.parts.values():
                self._storage.delete(S3Uri(self._files.root.bucket, entry.key))

        with store_problems():
            await self._workers.write(delete)
        self._files.quota.forget()

    # --- the state -------------------------------------------------------------------------------

    async def _end(self, state: UploadState, outcome: UploadOutcome) -> UploadOutcome:
        """Write the outcome; returns the one of another request if that was first."""
        uri = self._folder(state.id).child("outcome.json")
        with store_problems():
            try:
                data = outcome.to_json().encode()
                await self._workers.write(self._storage.create_bytes, uri, data)
            except AlreadyExists:
                now = await self._workers.read(self._load, state.id)
                if now is None or now.outcome is None:
                    raise
                return now.outcome
        return outcome

    def _refuse_end(self, state: UploadState) -> None:
        if state.outcome is not None:
            raise _has_ended(state.id, f"has been {state.outcome.status} already")
        if is_expired(state.id, self._files.now()):
            raise invalid(
                f"The upload {state.id} has expired: an upload lasts an hour. Begin again.",
                "upload_id",
                "upload_expired",
            )

    def _load(self, upload_id: str) -> UploadState | None:
        folder = self._folder(upload_id)
        found: dict[str, ObjectEntry] = {}
        for page in self._storage.pages(folder):
            found |= {entry.key[len(folder.key) + 1 :]: entry for entry in page}
            if len(found) > 2 * MOST_PARTS:
                break
        session = self._parse(found.get("upload.json"), UploadSession)
        if session is None:
            return None
        outcome = self._parse(found.get("outcome.json"), UploadOutcome)
        names = ((name.removeprefix("parts/"), entry) for name, entry in found.items())
        parts = {name: entry for name, entry in names if is_part_id(name) and entry.size}
        return UploadState(upload_id, session, outcome, parts)

    def _parse(self, entry: ObjectEntry | None, kind: type[S]) -> S | None:
        if entry is None or entry.size > JSON_BYTES:
            return None
        uri = S3Uri(self._files.root.bucket, entry.key)
        data = self._storage.read_range(uri, 0, entry.size, entry)
        try:
            return kind.model_validate_json(data)
        except ValidationError:
            logger.warning("%s cannot be read", uri)
            return None

    def _folder(self, upload_id: str) -> S3Uri:
        return self._files.space.child("uploads", upload_id)


def _has_ended(upload_id: str, how: str) -> Problem:
    return invalid(f"The upload {upload_id} {how}. Begin again.", "upload_id", "upload_ended")
