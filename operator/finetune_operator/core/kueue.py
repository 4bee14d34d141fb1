"""A queue's word on an attempt: where it waits, and that its pods were taken away again."""

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_operator.core.observed import Job
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import Verdict


def find_withdrawal(job: Job, queue: str | None, *, was_running: bool) -> Verdict | None:
    """The queue suspended a Job that it had admitted; its pods save a checkpoint and end.

    A Job that was never admitted has no pods. Never counted: nobody's fault.
    """
    if not (queue and job.is_suspended and (was_running or job.pods)):
        return None
    told = job.workload.evicted if job.workload else None
    return Verdict.of(
        ErrorInfo(
            code=Reason.PREEMPTED,
            message=f"queue {queue} took the pods back" + (f": {told[:900]}" if told else ""),
            hint="it goes on from the last checkpoint when the queue admits it again",
        ),
        is_counted=False,
    )


def say_position(draft: StatusBuilder, job: Job) -> None:
    """Once an attempt: later places stand in the status' message."""
    position = job.workload.position if job.workload else None
    if not (job.is_suspended and position):
        return
    attempts = {item.number: item for item in draft.status.attempts}
    since = attempts[job.attempt or 1].started_at
    if not any(item.reason == "Enqueued" and item.at >= since for item in draft.status.events):
        draft.say_again("Enqueued", f"Fine-tune enqueued. Queue number: {position}")
