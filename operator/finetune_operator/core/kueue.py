"""Kueue: an attempt's place in its queue, and pods that the queue evicts."""

from finetune_operator import messages
from finetune_operator.core.observed import Job
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import Verdict


def find_withdrawal(job: Job, *, was_running: bool) -> Verdict | None:
    """The verdict on a Job that the queue suspended after it had admitted it.

    Its pods save a checkpoint and end. A Job that was never admitted has no pods. A withdrawal is
    not the user's fault, so it never counts.
    """
    if not (job.queue and job.is_suspended and (was_running or job.pods)):
        return None
    cause = job.workload.evicted if job.workload else None
    return Verdict.of(messages.queue_withdrew(job.queue, cause), is_counted=False)


def record_queue_position(builder: StatusBuilder, job: Job) -> None:
    """Record the first known position of an attempt; later ones are only in the status message."""
    position = job.workload.position if job.workload else None
    if job.is_suspended and position:
        builder.record_event(messages.queue_position(job.attempt or 1, position))
