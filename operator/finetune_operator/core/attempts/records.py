"""The record of an attempt's end: when, why, where, and what it cost. It outlives the pods."""

from datetime import datetime

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason
from finetune_operator.core.attempts.backoff import end_planned, find_planned
from finetune_operator.core.attempts.restart_events import find_step, say_restarted
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.plan import Action, DeleteJob, stamp
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import Verdict, judge

LOGS_KEPT = 8


def end_open_attempt(seen: Observed, draft: StatusBuilder, reason: str, message: str) -> None:
    """A deadline or a person ends it: the record says so, and what it cost."""
    still_open = [item for item in draft.status.attempts if item.ended_at is None]
    for item in still_open:
        if item.number in seen.attempts:
            end_attempt(seen, draft, seen.attempts[item.number], reason, None)
            draft.attempt(item.number, message=message[:1024])
        else:
            end_planned(draft, item, reason, message[:1024])
    if draft.status.attempts:
        last = max(item.number for item in draft.status.attempts)
        draft.set(gpu_seconds=gpu_seconds(seen, draft, last))


def close_others(seen: Observed, draft: StatusBuilder, published: Job) -> tuple[Action, ...]:
    """Attempts that began while an earlier one published the model after all."""
    others = [job for job in seen.attempts.values() if job is not published]
    ended = {item.number for item in draft.status.attempts if item.ended_at is not None}
    message = f"attempt {published.attempt} had published the model already"
    for job in others:
        if job.attempt not in ended:
            end_attempt(seen, draft, job, Reason.CANCELLED, None)
            draft.attempt(job.attempt or 1, message=message)
    planned = find_planned(draft)
    if planned is not None and planned.number not in seen.attempts:
        end_planned(draft, planned, Reason.CANCELLED, message)
    return tuple(DeleteJob(job.name, job.uid) for job in others if not job.is_going)


def close_former(
    seen: Observed, draft: StatusBuilder, current: int, but: Job | None = None
) -> None:
    """The operator died between making an attempt and writing why the former one ended."""
    ended = {item.number for item in draft.status.attempts if item.ended_at is not None}
    for number in range(1, current):
        if number in ended:
            continue
        job = seen.attempts.get(number)
        if job is None:
            message = "its Job went before anybody saw why"
            draft.attempt(
                number, ended_at=stamp(draft.now), reason=Reason.POD_LOST, message=message
            )
        elif job is not but:
            verdict = judge(job)
            reason = verdict.error.code if verdict else Reason.POD_LOST
            end_attempt(seen, draft, job, reason, verdict)


def end_attempt(
    seen: Observed, draft: StatusBuilder, job: Job, reason: str, verdict: Verdict | None
) -> None:
    """Its time is that of its pods on the operator's clock, the one that deadlines are told by."""
    started = _started_at(draft, job)
    number = job.attempt or 1
    told = [pod.outcome.resumed_from_step for pod in job.pods if pod.outcome]
    step = next((step for step in told if step is not None), None)
    if step is not None and number > 1 and find_step(draft, number) is None:
        say_restarted(draft, number, step)  # it ended before a look of the operator saw it train
    draft.attempt(
        number,
        ended_at=stamp(draft.now),
        reason=reason,
        **({"started_at": stamp(started)} if started else {}),
        **(
            {
                "message": verdict.error.message[:1024],
                "counted": verdict.is_counted and not verdict.is_users,
                "hint": verdict.error.hint,
                "rank": verdict.error.rank,
                "node": verdict.error.node,
                "exit_code": verdict.error.exit_code,
                "log": verdict.error.log,
            }
            if verdict
            else {}
        ),
    )
    draft.set(attempts=_without_old_logs(draft.status.attempts))


def _started_at(draft: StatusBuilder, job: Job) -> datetime | None:
    """When its pods started: the record's own time, and what passed until then in the cluster."""
    records = {item.number: item for item in draft.status.attempts}
    known = records.get(job.attempt or 1)
    if job.started_at is None or job.created_at is None or known is None:
        return job.started_at
    return datetime.fromisoformat(known.started_at) + (job.started_at - job.created_at)


def _without_old_logs(attempts: list[Attempt]) -> list[Attempt]:
    """The newest keep their last lines: those of 200 attempts would not fit into an object."""
    newest = max(item.number for item in attempts)
    return [
        item if newest - item.number < LOGS_KEPT else item.replace(log=None) for item in attempts
    ]


def gpu_seconds(seen: Observed, draft: StatusBuilder, last: int) -> float | None:
    """GPUs times the time that each attempt's pods held them."""
    resources = seen.finetune.spec.resources
    gpus = resources.nodes * resources.gpus_per_node
    if not gpus:
        return None
    return round(
        gpus * sum(_seconds(item) for item in draft.status.attempts if item.number <= last)
    )


def _seconds(attempt: Attempt) -> float:
    if attempt.ended_at is None:
        return 0
    span = datetime.fromisoformat(attempt.ended_at) - datetime.fromisoformat(attempt.started_at)
    return max(0.0, span.total_seconds())
