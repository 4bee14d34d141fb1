"""A Job that waits in a queue of Kueue, which admits it by setting `suspend` to false."""

from typing import Any

from finetune_api import names
from finetune_operator.settings import Settings


def put_in_queue(job: dict[str, Any], queue: str | None) -> dict[str, Any]:
    """Return the Job, in the queue if there is one. Kueue owns `suspend` after the creation."""
    if not queue:
        return job
    meta = job["metadata"]
    queued = {**meta, "labels": meta["labels"] | {names.LABEL_KUEUE_QUEUE: queue}}
    return {**job, "metadata": queued, "spec": {**job["spec"], "suspend": True}}


def queue_on_cpus(queue: str | None, settings: Settings) -> str | None:
    """The queue for a Job on CPUs, which may be needed where Kueue manages all Jobs."""
    return queue if settings.kueue_queue_prepare else None
