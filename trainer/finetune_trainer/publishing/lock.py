"""Lets one of two pods publish that run as the same rank of the same attempt.

Kubernetes may start a pod twice. Both train the same model, bit for bit, but the model card
contains the time of publishing, so the files of one pod would not match the manifest of the other.
"""

import time
from collections.abc import Callable
from uuid import uuid4

from finetune_api.errors import FailureError
from finetune_api.outcome import Outcome
from finetune_api.tasks import RunRef, TrainTask
from finetune_api.wire import Stored
from finetune_storage.errors import AlreadyExists
from finetune_storage.manifests import to_bytes
from finetune_storage.s3 import Storage
from finetune_trainer import failures

LOCK = "publishing.json"
WAIT_SECONDS = 300.0  # for the other pod, which may have died while it published


class PublishLock(Stored):
    """`publishing.json`, next to the model: the attempt that has started to publish it."""

    attempt: int
    writer: str  # random, so that two locks never have the same bytes


def wait_for_duplicate_pod(
    task: TrainTask,
    storage: Storage,
    find: Callable[[RunRef, Storage], Outcome | None],
    progress: Callable[[str], None],
    seconds: float = WAIT_SECONDS,
) -> Outcome | None:
    """The outcome that another pod of this attempt published; None if this pod has to publish.

    The lock of an earlier attempt is replaced. That of a newer one raises FailureError. find:
    returns the published outcome, if any.
    """
    uri = task.run.layout.root.child(LOCK)
    lock = to_bytes(PublishLock(attempt=task.attempt, writer=uuid4().hex))
    try:
        storage.write_bytes(uri, lock, only_if_absent=True)
        return None
    except AlreadyExists:
        other = PublishLock.model_validate_json(storage.read_bytes(uri))
    if other.attempt > task.attempt:
        raise FailureError(failures.superseded(task.attempt, other.attempt))
    if other.attempt < task.attempt:
        storage.write_bytes(uri, lock)
        return None
    end = time.monotonic() + seconds
    progress("another pod of this rank is publishing the model")
    while time.monotonic() < end:
        found = find(task.run, storage)
        if found is not None:
            return found
        time.sleep(1)
    return None
