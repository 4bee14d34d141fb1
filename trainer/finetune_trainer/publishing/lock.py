"""Who publishes: of two pods that were started as the same rank of the same attempt, one.

Kubernetes may start a pod twice. Both train the same, bit for bit; but a model's card names the
moment of its publishing, so the files of one would not fit the manifest of the other.
"""

import time
from collections.abc import Callable
from uuid import uuid4

from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_api.wire import Stored
from finetune_storage.errors import AlreadyExists
from finetune_storage.manifests import to_bytes
from finetune_storage.s3 import Storage

LOCK = "publishing.json"
PATIENCE_SECONDS = 300.0  # for the other pod; one that died on its way is given up then


class PublishLock(Stored):
    """`publishing.json`, beside the model: the attempt that began to write it."""

    attempt: int
    writer: str  # a random number: two claims are never the same bytes


def wait_for_duplicate_pod(
    task: TrainTask,
    storage: Storage,
    find: Callable[[TrainTask, Storage], Outcome | None],
    progress: Callable[[str], None],
) -> Outcome | None:
    """What another pod of this attempt published; None where this one is to publish.

    A claim of an attempt that is over counts for nothing. `find`: the published outcome, if any.
    """
    uri = task.run.layout.root.child(LOCK)
    claim = to_bytes(PublishLock(attempt=task.attempt, writer=uuid4().hex))
    try:
        storage.write_bytes(uri, claim, only_if_absent=True)
        return None
    except AlreadyExists:
        other = PublishLock.model_validate_json(storage.read_bytes(uri))
    if other.attempt != task.attempt:
        storage.write_bytes(uri, claim)
        return None
    end = time.monotonic() + PATIENCE_SECONDS
    progress("another pod of this rank publishes the model")
    while time.monotonic() < end:
        found = find(task, storage)
        if found is not None:
            return found
        time.sleep(1)
    return None
