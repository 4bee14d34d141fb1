"""The record of an attempt's end: time, cause, place, and GPU time. It outlives the pods."""

from datetime import datetime

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason, Stage, State
from finetune_operator import messages
from finetune_operator.core.attempts.backoff import end_planned, find_planned
from finetune_operator.core.attempts.restart_events import find_resumed_step, record_restart
from finetune_operator.core.attempts.results import find_loss
from finetune_operator.core.kueue import find_withdrawal
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.plan import Action, DeleteJob, stamp
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import Verdict, judge

LOGS_KEPT = 8


def end_open_attempt(observed: Observed, builder: StatusBuilder, reason: str, message: str) -> None:
    """Close the open attempt, which a deadline or the user ended."""
    still_open = [item for item in builder.status.attempts if item.ended_at is None]
    for item in still_open:
        if item.number in observed.attempts:
            end_attempt(observed, builder, observed.attempts[item.number], reason, None)
            builder.attempt(item.number, message=message[:1024])
        else:
            end_planned(builder, item, reason, message[:1024])
    if builder.status.attempts:
        last = max(item.number for item in builder.status.attempts)
        builder.set(gpu_seconds=gpu_seconds(observed, builder, last))


def close_others(observed: Observed, builder: StatusBuilder, published: Job) -> tuple[Action, ...]:
    """Close and delete the attempts that started while an earlier one was still publishing."""
    others = [job for job in observed.attempts.values() if job is not published]
    ended = {item.number for item in builder.status.attempts if item.ended_at is not None}
    newest = max((item.number for item in builder.status.attempts), default=1)
    message = messages.published_before(published.attempt or newest)
    for job in others:
        if job.attempt not in ended:
            end_attempt(observed, builder, job, Reason.CANCELLED, None)
            builder.attempt(job.attempt or 1, message=message)
    planned = find_planned(builder)
    if planned is not None and planned.number not in observed.attempts:
        end_planned(builder, planned, Reason.CANCELLED, message)
    return tuple(DeleteJob(job.name, job.uid) for job in others if not job.is_going)


def close_former(
    observed: Observed, builder: StatusBuilder, current: int, but: Job | None = None
) -> None:
    """Close earlier attempts that are open because the operator crashed before its status write."""
    ended = {item.number for item in builder.status.attempts if item.ended_at is not None}
    for number in range(1, current):
        if number in ended:
            continue
        job = observed.attempts.get(number)
        if job is None:
            builder.attempt(
                number,
                ended_at=stamp(builder.now),
                reason=Reason.POD_LOST,
                message=messages.JOB_REMOVED,
            )
        elif job is not but:
            verdict = _find_cause(observed, job, builder.now)
            reason = verdict.error.code if verdict else Reason.POD_LOST
            end_attempt(observed, builder, job, reason, verdict)


def _find_cause(observed: Observed, job: Job, now: datetime) -> Verdict | None:
    """The cause of the end, which the next attempt follows: it was decided, and not written."""
    verdict = judge(job) or find_withdrawal(job, was_running=True)
    loss = find_loss(job, messages.attempt_in_words(job.attempt or 1), now)
    if verdict is None and loss is not None:
        return Verdict.of(loss, is_counted=False)
    return verdict


def end_attempt(
    observed: Observed, builder: StatusBuilder, job: Job, reason: str, verdict: Verdict | None
) -> None:
    """Record the end, and the time of the pods on the operator's clock, as deadlines use it."""
    started = _started_at(builder, job)
    number = job.attempt or 1
    steps = [pod.outcome.resumed_from_step for pod in job.pods if pod.outcome]
    step = next((step for step in steps if step is not None), None)
    if step is not None and number > 1 and find_resumed_step(builder, number) is None:
        record_restart(builder, number, step)  # it ended before the operator observed its training
    builder.attempt(
        number,
        ended_at=stamp(_ended_at(builder, job)),
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
                "exhausted_memory": verdict.exhausted_memory,
            }
            if verdict
            else {}
        ),
    )
    builder.set(attempts=_without_old_logs(builder.status.attempts))


def _ended_at(builder: StatusBuilder, job: Job) -> datetime:
    """Now; the end of rank 0 if the API server refused the Model of an ended training since then.

    The time is on the operator's clock, as in `_started_at`.
    """
    records = {item.number: item for item in builder.status.attempts}
    known, pod = records.get(job.attempt or 1), job.rank0
    was_refused = builder.finetune.status.stage == Stage.PUBLISHING
    if not was_refused or known is None or job.created_at is None:
        return builder.now
    if builder.finetune.status.state != State.PENDING or pod is None or pod.ended_at is None:
        return builder.now
    ended = datetime.fromisoformat(known.started_at) + (pod.ended_at - job.created_at)
    return min(builder.now, max(ended, datetime.fromisoformat(known.started_at)))


def _started_at(builder: StatusBuilder, job: Job) -> datetime | None:
    """The start of its pods: the recorded time plus the delay that the cluster's clock shows."""
    records = {item.number: item for item in builder.status.attempts}
    known = records.get(job.attempt or 1)
    if job.started_at is None or job.created_at is None or known is None:
        return job.started_at
    return datetime.fromisoformat(known.started_at) + (job.started_at - job.created_at)


def _without_old_logs(attempts: list[Attempt]) -> list[Attempt]:
    """Keep the log lines of the newest attempts only: those of 200 would not fit an object."""
    newest = max(item.number for item in attempts)
    return [
        item if newest - item.number < LOGS_KEPT else item.replace(log=None) for item in attempts
    ]


def gpu_seconds(observed: Observed, builder: StatusBuilder, last: int) -> float | None:
    """GPUs multiplied by the seconds that the pods of each attempt held them."""
    resources = observed.finetune.spec.resources
    gpus = resources.nodes * resources.gpus_per_node
    if not gpus:
        return None
    return round(
        gpus * sum(_seconds(item) for item in builder.status.attempts if item.number <= last)
    )


def _seconds(attempt: Attempt) -> float:
    if attempt.ended_at is None:
        return 0
    span = datetime.fromisoformat(attempt.ended_at) - datetime.fromisoformat(attempt.started_at)
    return max(0.0, span.total_seconds())
