"""The training: one Job an attempt, the whole gang restarts, and only one verdict counts."""

from dataclasses import replace
from datetime import datetime

from finetune_api.finetune_status import Attempt, ErrorInfo, Resolved
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import ProgressReport
from finetune_api.tasks import TrainTask
from finetune_operator.build.identity import attempt_name
from finetune_operator.build.train_job import build_train_job
from finetune_operator.core.attempts.backoff import (
    end_planned,
    find_planned,
    plan_attempt,
    seconds_left,
    seconds_to_wait,
)
from finetune_operator.core.attempts.oom_retry import next_share
from finetune_operator.core.attempts.oom_retry import recorded as recorded_share
from finetune_operator.core.attempts.records import (
    close_former,
    close_others,
    end_attempt,
    gpu_seconds,
)
from finetune_operator.core.attempts.restart_events import (
    find_step,
    say_restarted,
    say_restarted_in_vain,
)
from finetune_operator.core.attempts.retry import may_retry
from finetune_operator.core.deadlines import find_stall
from finetune_operator.core.kueue import find_withdrawal, say_position
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.pending import explain
from finetune_operator.core.plan import Action, Create, CreateService, DeleteJob, Plan, stamp
from finetune_operator.core.progress import apply_progress, is_due, to_progress
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.success import find_published, succeed
from finetune_operator.core.verdict import Verdict, judge, may_say_more
from finetune_operator.settings import Settings

PENDING_SECONDS = 15.0
SLOW_START_SECONDS = 60
NO_DATASET = ErrorInfo(
    code=Reason.INTERNAL,
    message="an older operator began it and did not say where its dataset is",
    hint="create the FineTune again: its data is checked anew",
)
LATE_SECONDS = 60.0  # of a planned start: beyond it the record is put right
LISTEN_SECONDS = 2.0  # until the next look, while the cause of a failure is not told yet


def decide_training(seen: Observed, draft: StatusBuilder, settings: Settings) -> Plan:
    """The draft's `resolved` is whole: create, watch, restart or end the current attempt."""
    current = _current_attempt(seen, draft)
    job = seen.attempts.get(current)
    recorded = {attempt.number: attempt for attempt in seen.finetune.status.attempts}.get(current)
    published = find_published(seen)
    if published is not None:
        close_former(seen, draft, current, but=published[0])
        return succeed(seen, draft, *published, close_others(seen, draft, published[0]))
    plan = _decide_start(seen, draft, settings, current, recorded)
    if plan is not None:
        return plan
    assert job is not None
    close_former(seen, draft, current)
    if recorded is None:
        since = stamp(job.created_at or draft.now)
        draft.attempt(current, started_at=since, micro_batch_share=_told_share(job))
    actions: tuple[Action, ...] = _leftovers(seen)
    if job.name not in seen.services and not job.is_over:
        actions = (*actions, CreateService(current, job.name))
    if seen.finetune.spec.suspend:
        end_attempt(seen, draft, job, Reason.SUSPENDED, None)
        return Plan(draft.suspend().finish(), actions)
    # What is not recorded yet never ran: then the status still tells of its forerunner.
    was_running = recorded is not None and seen.finetune.status.state == State.RUNNING
    withdrawal = find_withdrawal(job, seen.finetune.spec.queue_name, was_running=was_running)
    if withdrawal is None and may_say_more(job, draft.now):
        return Plan(draft.finish(), actions, LISTEN_SECONDS)
    verdict = judge(job)
    if verdict is None or not verdict.is_users:
        verdict = withdrawal or verdict or find_stall(seen.finetune, seen.progress)
    if verdict is not None:
        return _restart_or_fail(seen, draft, settings, job, verdict)
    _watch(seen, draft, job, settings, was_running=was_running)
    is_running = draft.status.state == State.RUNNING
    wait = settings.poll_seconds if is_running else PENDING_SECONDS
    return Plan(draft.finish(), actions, wait)


def _decide_start(
    seen: Observed, draft: StatusBuilder, settings: Settings, current: int, recorded: Attempt | None
) -> Plan | None:
    """What comes before a Job that can be watched; None when there is one."""
    job = seen.attempts.get(current)
    was_suspended = recorded is not None and recorded.reason == Reason.SUSPENDED
    planned = find_planned(draft) if job is None else None
    if seen.finetune.spec.suspend and (job is None or was_suspended):
        if planned is not None:
            end_planned(draft, planned, Reason.SUSPENDED)
        return Plan(draft.suspend().finish(), _leftovers(seen))
    if was_suspended:
        draft.say_turn("Resumed", "Fine-tune resumed")
        return _start(seen, draft, settings, current + 1)
    if job is None and recorded is None:
        return _start(seen, draft, settings, current)
    if planned is not None:
        return _start_planned(seen, draft, settings, planned)
    return _deleted(draft, current) if job is None or job.is_going else None


def find_abandoned(seen: Observed) -> tuple[Action, ...]:
    """Of a FineTune that failed: what still works and holds GPUs, and what is not the newest.

    A Job with a failed pod ends the others itself, and the newest stays for its logs.
    """
    newest = max(seen.attempts, default=0)
    return tuple(
        DeleteJob(job.name, job.uid)
        for number, job in seen.attempts.items()
        if not job.is_going and (number < newest or not _has_dead_pod(job))
    )


def _has_dead_pod(job: Job) -> bool:
    return job.has_failed or any(pod.phase == "Failed" for pod in job.pods)


def _current_attempt(seen: Observed, draft: StatusBuilder) -> int:
    """The newest that is recorded or exists: a crash between the two must not make a third."""
    return max([1, *seen.attempts, *(attempt.number for attempt in draft.status.attempts)])


def _start(
    seen: Observed,
    draft: StatusBuilder,
    settings: Settings,
    number: int,
    *,
    why: str = "",
    wait: float = 0,
) -> Plan:
    """The attempt's Job and Service; with a `wait` (seconds) only its record for now."""
    finetune = seen.finetune
    if _resolved(draft).dataset is None:
        return Plan(draft.fail(NO_DATASET).finish())
    queue = finetune.spec.queue_name
    share = recorded_share(next_share(draft.status.attempts, number))
    if queue and not settings.kueue_version:
        draft.say("Enqueued", f"Fine-tune enqueued in queue {queue}")
    nodes = finetune.spec.resources.nodes
    message = f"starting {nodes} {'pod' if nodes == 1 else 'pods'}"
    if why:
        starts_at = plan_attempt(draft, number, wait, share)
        message = f"attempt {number} starts{f' at {starts_at}' if wait else ''}{why}"[:2048]
    else:
        draft.attempt(number, micro_batch_share=share)
    reason = Reason.RESTARTING if why else Reason.STARTING
    draft.pending(Stage.QUEUED if queue else Stage.STARTING, reason, message)
    if wait:
        return Plan(draft.finish(), (), wait)
    return Plan(draft.finish(), _creations(seen, draft, settings, number), PENDING_SECONDS)


def _creations(
    seen: Observed, draft: StatusBuilder, settings: Settings, number: int
) -> tuple[Action, ...]:
    share = next_share(draft.status.attempts, number)
    job = build_train_job(seen.finetune, _resolved(draft), settings, number, share)
    return Create(job), CreateService(number, attempt_name(seen.finetune, number))


def _start_planned(
    seen: Observed, draft: StatusBuilder, settings: Settings, planned: Attempt
) -> Plan:
    """The status tells of it already, so that its Job needs no further write."""
    left = seconds_left(seen, draft, planned, settings.restart_seconds)
    if left is None:
        return _deleted(draft, planned.number)
    if left:
        return Plan(draft.finish(), _leftovers(seen, kept=planned.number - 1), left)
    late = (draft.now - datetime.fromisoformat(planned.started_at)).total_seconds()
    if not 0 <= late <= LATE_SECONDS:  # the mark of the wait went, or the operator was away
        draft.attempt(planned.number, started_at=stamp(draft.now))
    actions = _creations(seen, draft, settings, planned.number)
    return Plan(draft.finish(), (*actions, *_leftovers(seen)), PENDING_SECONDS)


def _watch(
    seen: Observed, draft: StatusBuilder, job: Job, settings: Settings, *, was_running: bool
) -> None:
    """Running means: every pod is ready. A probe that fails later makes nothing pending again."""
    nodes = seen.finetune.spec.resources.nodes
    ready = sum(pod.is_ready or pod.exit_code == 0 for pod in job.pods)
    if ready < nodes and not was_running:
        reason, message = explain(job, nodes, seen.finetune.spec.queue_name)
        say_position(draft, job)
        stage = Stage.QUEUED if job.is_suspended else Stage.STARTING
        restarting = draft.status.reason == Reason.RESTARTING and reason == Reason.STARTING
        if not restarting:  # why it restarts says more than that it starts
            draft.pending(stage, reason, message[:2048])
        _tell_slow_start(draft, job, seen.progress, settings)
        return
    report = seen.progress
    draft.running(report.stage if report else Stage.TRAINING, f"{nodes} of {nodes} pods train")
    draft.say("BaseModelLoaded", f"Base model loaded: {_resolved(draft).base.name}")
    draft.say("Started", "Fine-tune started")
    if report is None:
        return
    if job.attempt and job.attempt > 1:
        say_restarted(draft, job.attempt, report.resumed_from_step or 0)
    apply_progress(draft, report, settings.progress_seconds)


def _tell_slow_start(
    draft: StatusBuilder, job: Job, report: ProgressReport | None, settings: Settings
) -> None:
    """A large model downloads for minutes: after the first one, say how far it is."""
    started = job.started_at
    if report is None or started is None:
        return
    is_slow = (draft.now - started).total_seconds() > SLOW_START_SECONDS
    if is_slow and is_due(draft.status.progress, draft.now, settings.progress_seconds):
        draft.set(progress=to_progress(report, draft.now))


def _restart_or_fail(
    seen: Observed, draft: StatusBuilder, settings: Settings, job: Job, verdict: Verdict
) -> Plan:
    number = job.attempt or 1
    former = [attempt for attempt in draft.status.attempts if attempt.number < number]
    now = next(item for item in draft.status.attempts if item.number == number)
    share = now.micro_batch_share or 1
    retry = may_retry(verdict, former, seen.finetune.spec.max_restarts, share)
    end_attempt(seen, draft, job, verdict.error.code, verdict)
    if number > 1 and find_step(draft, number) is None:
        say_restarted_in_vain(draft, number)
    if retry.is_allowed:
        halved = " with half the micro-batch" if verdict.error.code == Reason.OUT_OF_MEMORY else ""
        why = f"{halved}: {verdict.error.message}"
        # What hangs holds its GPUs until its Job goes: no wait, for it took long enough.
        has_ended = _has_dead_pod(job)
        attempts = [item for item in draft.status.attempts if item.number <= number]
        pause = seconds_to_wait(attempts, settings.restart_seconds) if has_ended else 0.0
        return _start(seen, draft, settings, number + 1, why=why, wait=pause)
    error = verdict.error
    if retry.why_not:
        message = f"{error.message}; {retry.why_not}"[:2048]
        error = error.replace(message=message, hint=retry.hint or error.hint)
    draft.set(gpu_seconds=gpu_seconds(seen, draft, number))
    return Plan(draft.fail(error).finish())


def _deleted(draft: StatusBuilder, number: int) -> Plan:
    """Somebody removed the Job of a running attempt; training never starts again by itself."""
    message = f"the Job of attempt {number} was deleted"
    hint = "create a new FineTune to train again"
    draft.attempt(number, ended_at=stamp(draft.now), reason=Reason.JOB_DELETED, message=message)
    error = ErrorInfo(code=Reason.JOB_DELETED, message=message, hint=hint)
    return Plan(draft.fail(error).finish())


def leaves_jobs(seen: Observed, plan: Plan) -> bool:
    """Once the plan's status is written, Jobs may go: nothing but a requeue does that.

    Not the one before an attempt that is recorded and has no Job yet.
    """
    after = replace(seen, finetune=seen.finetune.replace(status=plan.status))
    if plan.status.state == State.FAILED:
        return bool(set(find_abandoned(after)) - set(plan.actions_of(DeleteJob)))
    still_open = {item.number for item in plan.status.attempts if item.ended_at is None}
    is_to_be_made = not still_open <= seen.attempts.keys() and not plan.actions_of(Create)
    kept = max(still_open) - 1 if is_to_be_made else None
    return bool(set(_leftovers(after, kept=kept)) - set(plan.actions_of(DeleteJob)))


def _leftovers(seen: Observed, *, kept: int | None = None) -> tuple[DeleteJob, ...]:
    """Jobs of attempts go once the written status tells of their end; `kept` marks a wait."""
    told = {item.number for item in seen.finetune.status.attempts if item.ended_at is not None}
    return tuple(
        DeleteJob(job.name, job.uid)
        for number, job in seen.attempts.items()
        if number in told and not job.is_going and number != kept
    )


def _told_share(job: Job) -> float | None:
    """What the pods of an attempt were told, when the operator died before it wrote the status."""
    task = TrainTask.model_validate_json(job.task) if job.task else None
    return recorded_share(task.micro_batch_share) if task else None


def _resolved(draft: StatusBuilder) -> Resolved:
    assert draft.status.resolved is not None
    return draft.status.resolved
