"""Lets one of several pods publish that run as the same rank of the same attempt.

Kubernetes may start a pod twice. Both train the same model, bit for bit, but the model card
contains the time of publishing, so the files of one pod would not match the manifest of the other.

The pod that publishes renews its claim all the time. Another pod of the attempt waits as long as
the claim changes, and takes it over if it does not: its holder is dead, or cut off from S3. A
holder that finds another pod's claim stops before its next write.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import uuid4

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.outcome import Outcome
from finetune_api.tasks import RunRef, TrainTask
from finetune_api.uris import S3Uri
from finetune_api.wire import Stored
from finetune_storage.errors import AlreadyExists, StorageError
from finetune_storage.manifests import to_bytes
from finetune_storage.messages import StorageProblem
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry
from finetune_trainer import failures

LOCK = "publishing.json"


@dataclass(frozen=True)
class Timing:
    """The times of claims, in seconds."""

    beat: float = 10.0  # between two renewals
    dead: float = 60.0  # without a renewal, after which the holder counts as dead
    poll: float = 2.0  # between two reads of the claim of another pod
    settle: float = 5.0  # for the writes of others, on a store without conditional writes


TIMING = Timing()


class PublishLock(Stored):
    """`publishing.json`, next to the model: the attempt that has started to publish it."""

    attempt: int
    writer: str  # random, so that two locks never have the same bytes
    beat: int = 0  # grows while the writer publishes


class ClaimLostError(Exception):
    """Another pod has the claim."""


class PublishClaim:
    """The claim of this pod. It is renewed while the context is open."""

    def __init__(self, storage: Storage, uri: S3Uri, attempt: int, timing: Timing) -> None:
        self._storage = storage
        self._uri = uri
        self._timing = timing
        self._lock = PublishLock(attempt=attempt, writer=uuid4().hex)
        self._entry: ObjectEntry | None = None
        self._is_lost = False
        self._has_ended = threading.Event()
        self._guard = threading.Lock()  # between the renewals and `require`
        self._thread = threading.Thread(target=self._renew, name="publish-claim", daemon=True)

    def take(self, held: ObjectEntry | None) -> bool:
        """Whether this pod has the claim now. held: the version to replace; None: there is none."""
        try:
            self._write(held)
        except StorageError as error:
            if _is_refused(error):
                return False
            raise
        if not self._storage.has_conditional_writes(self._uri, to_bytes(self._lock)):
            print(
                f"warning: the store at {self._storage.endpoint} has no conditional writes "
                "(If-None-Match). If Kubernetes starts a pod twice, only the times between the "
                "writes keep both from publishing.",
                flush=True,
            )
            time.sleep(self._timing.settle)
        return self._is_held()

    def require(self) -> None:
        """Raise ClaimLostError unless this pod still has the claim in S3."""
        with self._guard:
            if self._is_lost or not self._is_held():
                self._is_lost = True
                raise ClaimLostError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._has_ended.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._has_ended.wait(self._timing.beat):
            # While S3 does not answer, the claim is as old as it looks to others. An attempt that
            # a newer one replaces stops at its next write.
            with self._guard, contextlib.suppress(FailureError):
                self._is_lost = self._is_lost or not self._is_held()
                if self._is_lost:
                    return
                self._lock = self._lock.replace(beat=self._lock.beat + 1)
                self._write(self._entry)

    def _write(self, held: ObjectEntry | None) -> None:
        data = to_bytes(self._lock)
        if held is None:
            self._entry = self._storage.create_bytes(self._uri, data)
        else:
            self._entry = self._storage.replace_bytes(self._uri, data, held)

    def _is_held(self) -> bool:
        found = read_lock(self._uri, self._storage)
        if found is None or found[0].writer != self._lock.writer:
            return False
        self._entry = found[1]
        return True


def claim_publishing(
    task: TrainTask,
    storage: Storage,
    find: Callable[[RunRef, Storage], Outcome | None],
    progress: Callable[[str], None],
    timing: Timing = TIMING,
) -> PublishClaim | Outcome:
    """This pod's claim to publish, or the outcome that another pod of this attempt published.

    The claim of an earlier attempt is replaced. find: returns the published outcome, if any. Raises
    FailureError if a later attempt has the claim.
    """
    uri = task.run.layout.root.child(LOCK)
    claim = PublishClaim(storage, uri, task.attempt, timing)
    seen: PublishLock | None = None
    since = time.monotonic()
    while True:
        found = read_lock(uri, storage)
        if found is None:
            if claim.take(None):
                return claim
            continue
        lock, entry = found
        if lock.attempt > task.attempt:
            raise FailureError(failures.superseded(task.attempt, lock.attempt))
        if lock.attempt == task.attempt:
            outcome = find(task.run, storage)
            if outcome is not None:
                return outcome
            if lock != seen:
                if seen is None:
                    progress("another pod of this rank is publishing the model")
                seen, since = lock, time.monotonic()
            if time.monotonic() - since < timing.dead:
                time.sleep(timing.poll)
                continue
        if claim.take(entry):
            return claim


def read_lock(uri: S3Uri, storage: Storage) -> tuple[PublishLock, ObjectEntry] | None:
    """The claim and its version; None if there is none."""
    try:
        data, entry = storage.read_version(uri)
    except StorageError as error:
        if error.failure.code == Reason.DATA_NOT_FOUND:
            return None
        raise
    try:
        return PublishLock.model_validate_json(data), entry
    except ValidationError:
        return PublishLock(attempt=0, writer=""), entry  # not a claim: it is replaced


def _is_refused(error: StorageError) -> bool:
    return isinstance(error, AlreadyExists) or error.problem is StorageProblem.CHANGED
