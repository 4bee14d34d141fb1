"""The training: one Job per attempt. All pods restart together, and one verdict decides."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from finetune_api.finetune_status import Attempt, ErrorInfo, Resolved
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import ProgressReport
from finetune_api.tasks import TrainTask
from finetune_operator import messages
from finetune_operator.build.identity import attempt_name
from finetune_operator.build.pod_group import needs_group
from finetune_operator.build.pod_resources import with_defaults
from finetune_operator.build.train_job import AttemptSize, build_train_job
from finetune_operator.core.attempts.avoided_nodes import avoided_nodes
from finetune_operator.core.attempts.backoff import (
    end_planned,
    find_planned,
    find_refused,
    plan_attempt,
    seconds_left,
    seconds_to_wait,
)
from finetune_operator.core.attempts.gangs import NO_RELEASE
from finetune_operator.core.attempts.lookup import decide_lookup, was_deleted
from finetune_operator.core.attempts.oom_retry import (
    describe_change,
    find_refusal,
    memory_request,
    next_size,
    size_to_record,
    weigh_host_memory,
)
from finetune_operator.core.attempts.progress import apply_progress, is_due, to_progress
from finetune_operator.core.attempts.records import (
    close_former,
    close_others,
    end_attempt,
    gpu_seconds,
)
from finetune_operator.core.attempts.release import (
    end_released,
    find_release,
    follows_release,
    longest_wait,
)
from finetune_operator.core.attempts.removal import has_dead_pod
from finetune_operator.core.attempts.restart_events import find_resumed_step, record_restart
from finetune_operator.core.attempts.results import awaits_pods, find_loss
from finetune_operator.core.attempts.retry import may_retry
from finetune_operator.core.attempts.success import find_published, succeed
from finetune_operator.core.deadlines import find_stall
from finetune_operator.core.kueue import find_withdrawal, record_queue_position
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.pending import explain
from finetune_operator.core.plan import Action, Create, CreateService, DeleteJob, Plan, stamp
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import Verdict, awaits_root_cause, judge
from finetune_operator.messages.text import MESSAGE_CHARACTERS
from finetune_operator.settings import Settings

PENDING_SECONDS = 15.0
SLOW_START_SECONDS = 60
LATE_SECONDS = 60.0  # a planned attempt that starts later than this gets a new start time
ROOT_CAUSE_POLL_SECONDS = 2.0  # between observations while the root cause is not known yet


def decide_training(observed: Observed, builder: StatusBuilder, settings: Settings) -> Plan:
    """Create, watch, restart, or end the current attempt. `status.resolved` must be complete."""
    current = _current_attempt(observed, builder)
    job = observed.attempts.get(current)
    recorded = {attempt.number: attempt for attempt in observed.finetune.status.attempts}.get(
        current
    )
    published = find_published(observed, builder.status.resolved)
    if published is not None:
        close_former(observed, builder, current, but=published[0])
        if job is not None and recorded is None:
            _record_found(builder, job, settings)
        return succeed(observed, builder, *published, close_others(observed, builder, published[0]))
    plan = _decide_start(observed, builder, settings, current, recorded)
    if plan is not None:
        return plan
    assert job is not None
    close_former(observed, builder, current)
    if recorded is None:
        former = observed.finetune.status.attempts
        _record_found(builder, job, settings)
        if any(item.number == current - 1 and item.reason == Reason.SUSPENDED for item in former):
            builder.record_event(messages.resumed(current))
    actions: tuple[Action, ...] = _leftovers(observed)
    if job.name not in observed.services and not job.is_over:
        version = observed.group_version if job.is_grouped else ""
        actions = (*actions, CreateService(current, job.name, version))
    if observed.finetune.spec.suspend:
        end_attempt(observed, builder, job, Reason.SUSPENDED, None)
        return Plan(builder.suspend(current).finish(), actions)
    # An attempt without a record never ran: the status is still that of the one before it.
    was_running = recorded is not None and observed.finetune.status.state == State.RUNNING
    withdrawal = find_withdrawal(job, was_running=was_running)
    if withdrawal is None and (
        awaits_root_cause(job, builder.now) or awaits_pods(job, builder.now)
    ):
        return Plan(builder.finish(), actions, ROOT_CAUSE_POLL_SECONDS)
    verdict = judge(job)
    if verdict is None or not verdict.is_users:
        verdict = withdrawal or verdict or _find_loss(job, current, builder.now)
        verdict = verdict or find_stall(observed.finetune, observed.progress)
    if verdict is not None:
        return _restart_or_fail(observed, builder, settings, job, verdict)
    release = NO_RELEASE if was_running else find_release(observed, builder, settings, current)
    if release.is_due:
        error, pause = end_released(observed, builder, settings, job, release)
        plan = _start(observed, builder, settings, current + 1, cause=error, wait=pause)
        return replace(plan, is_release=True)
    _watch(observed, builder, job, settings, was_running=was_running)
    is_running = builder.status.state == State.RUNNING
    wait = settings.poll_seconds if is_running else PENDING_SECONDS
    return Plan(builder.finish(), actions, min(wait, release.seconds_left or wait))


def _decide_start(
    observed: Observed,
    builder: StatusBuilder,
    settings: Settings,
    current: int,
    recorded: Attempt | None,
) -> Plan | None:
    """The plan while there is no Job to watch; None if there is one."""
    job = observed.attempts.get(current)
    if was_deleted(recorded):
        return _look_up(observed, builder, settings, current)
    was_suspended = recorded is not None and recorded.reason == Reason.SUSPENDED
    refused = find_refused(builder) if job is None else None
    planned = refused or (find_planned(builder) if job is None else None)
    if observed.finetune.spec.suspend and (job is None or was_suspended):
        if planned is not None:
            end_planned(builder, planned, Reason.SUSPENDED)
        elif recorded is not None and recorded.ended_at is None:  # its Job was deleted
            builder.attempt(current, ended_at=stamp(builder.now), reason=Reason.SUSPENDED)
        attempt = current if recorded is not None else None
        return Plan(builder.suspend(attempt).finish(), _leftovers(observed))
    if was_suspended:
        builder.record_event(messages.resumed(current + 1))
        return _start(observed, builder, settings, current + 1)
    if job is None and recorded is None:
        return _start(observed, builder, settings, current)
    if planned is not None:
        return _start_planned(observed, builder, settings, planned, was_refused=bool(refused))
    if job is None or job.is_going:
        return _look_up(observed, builder, settings, current)
    return None


def _look_up(observed: Observed, builder: StatusBuilder, settings: Settings, number: int) -> Plan:
    plan = decide_lookup(observed, builder, settings, number)
    return replace(plan, actions=(*_leftovers(observed), *plan.actions))


def _find_loss(job: Job, number: int, now: datetime) -> Verdict | None:
    """The verdict on an attempt that succeeded, and whose result is lost. The next one finds it."""
    error = find_loss(job, messages.attempt_in_words(number), now)
    return Verdict.of(error, is_counted=False) if error is not None else None


def _current_attempt(observed: Observed, builder: StatusBuilder) -> int:
    """The newest attempt that is recorded or exists: a crash in between must not add another."""
    return max([1, *observed.attempts, *(attempt.number for attempt in builder.status.attempts)])


def _start(
    observed: Observed,
    builder: StatusBuilder,
    settings: Settings,
    number: int,
    *,
    cause: ErrorInfo | None = None,
    wait: float = 0,
) -> Plan:
    """Create the Job and the Service of an attempt.

    cause: the end of the attempt before it. With a `wait` (seconds) the attempt is only recorded.
    """
    finetune, resolved = observed.finetune, _resolved(builder)
    if resolved.dataset is None:
        return Plan(builder.fail(messages.DATASET_NOT_RECORDED).finish())
    queue = finetune.spec.queue_name
    attempts = builder.status.attempts
    record = size_to_record(next_size(finetune, resolved, attempts, number))
    _record_queue(builder, settings)
    message = messages.pods_starting(finetune.spec.resources.nodes)
    if cause is not None:
        starts_at = plan_attempt(builder, number, wait, record)
        change = describe_change(finetune, resolved, settings, attempts, number)
        at = starts_at if wait else None
        message = messages.attempt_starts(number, at, cause.message, change)
    else:
        builder.attempt(number, **record)
    builder.pending(Stage.QUEUED if queue else Stage.STARTING, message)
    if wait:
        return Plan(builder.finish(), (), wait)
    return Plan(builder.finish(), _creations(observed, builder, settings, number), PENDING_SECONDS)


def _record_queue(builder: StatusBuilder, settings: Settings) -> None:
    """Record the queue of the attempts. With Kueue's API, the position in it is recorded later."""
    queue = builder.finetune.spec.queue_name
    if queue and not settings.reads_kueue:
        builder.record_event(messages.enqueued(queue))


def _creations(
    observed: Observed, builder: StatusBuilder, settings: Settings, number: int
) -> tuple[Action, ...]:
    finetune, resolved = observed.finetune, _resolved(builder)
    size = next_size(finetune, resolved, builder.status.attempts, number)
    avoided = avoided_nodes(builder.status.attempts, number)
    runtime = settings.runtime(resolved.runtime.name)
    version = observed.group_version if needs_group(finetune, runtime) else ""
    job = build_train_job(
        *(finetune, resolved, settings, number, size), avoided=avoided, is_grouped=bool(version)
    )
    return Create(job), CreateService(number, attempt_name(finetune, number), version)


def _start_planned(
    observed: Observed,
    builder: StatusBuilder,
    settings: Settings,
    planned: Attempt,
    *,
    was_refused: bool,
) -> Plan:
    """Create the Job of a planned attempt. The status has it already and is not written again.

    was_refused: by the API server. The status says so until the Job exists.
    """
    is_freed = follows_release(builder.status.attempts, planned.number)
    longest = longest_wait(settings, is_freed=is_freed)
    left = seconds_left(observed, builder, planned, longest, is_freed=is_freed)
    if was_refused:
        nodes = observed.finetune.spec.resources.nodes
        stage = Stage.QUEUED if observed.finetune.spec.queue_name else Stage.STARTING
        builder.pending(stage, messages.pods_starting(nodes))
        left = 0.0
    if left is None and builder.status.reason != Reason.RESTARTING:  # its pods have been seen
        return _look_up(observed, builder, settings, planned.number)
    if left:
        kept = None if is_freed else planned.number - 1
        return Plan(builder.finish(), _leftovers(observed, kept=kept), left)
    late = (builder.now - datetime.fromisoformat(planned.started_at)).total_seconds()
    if not 0 <= late <= LATE_SECONDS:  # the old Job was deleted, or the operator was away
        builder.attempt(planned.number, started_at=stamp(builder.now))
    _record_queue(builder, settings)
    actions = _creations(observed, builder, settings, planned.number)
    return Plan(builder.finish(), (*actions, *_leftovers(observed)), PENDING_SECONDS)


def _watch(
    observed: Observed, builder: StatusBuilder, job: Job, settings: Settings, *, was_running: bool
) -> None:
    """Running begins when every pod is ready. A probe that fails later does not end it."""
    nodes = observed.finetune.spec.resources.nodes
    ready = sum(pod.is_ready or pod.exit_code == 0 for pod in job.pods)
    if ready < nodes and not was_running:
        message = explain(job, nodes)
        record_queue_position(builder, job)
        stage = Stage.QUEUED if job.is_suspended else Stage.STARTING
        is_restarting = builder.status.reason == Reason.RESTARTING
        if not (is_restarting and message.reason == Reason.STARTING):  # keep the restart's cause
            builder.pending(stage, message)
        _report_slow_start(builder, job, observed.progress, settings)
        return
    report = observed.progress
    builder.running(report.stage if report else Stage.TRAINING, messages.pods_training(nodes))
    builder.record_event(messages.base_model_loaded(_resolved(builder).base.name))
    builder.record_event(messages.STARTED)
    if report is None:
        return
    if job.attempt and job.attempt > 1:
        record_restart(builder, job.attempt, report.resumed_from_step or 0)
    apply_progress(builder, report, settings.progress_seconds)


def _report_slow_start(
    builder: StatusBuilder, job: Job, report: ProgressReport | None, settings: Settings
) -> None:
    """Report the progress of a start that takes long, such as the download of a large model."""
    started = job.started_at
    if report is None or started is None:
        return
    is_slow = (builder.now - started).total_seconds() > SLOW_START_SECONDS
    if is_slow and is_due(builder.status.progress, builder.now, settings.progress_seconds):
        builder.set(progress=to_progress(report, builder.now))


def _restart_or_fail(
    observed: Observed, builder: StatusBuilder, settings: Settings, job: Job, verdict: Verdict
) -> Plan:
    """End the attempt, and start the next one or fail."""
    number = job.attempt or 1
    finetune = observed.finetune.replace(status=builder.status)
    former = [attempt for attempt in builder.status.attempts if attempt.number < number]
    now = next(item for item in builder.status.attempts if item.number == number)
    size = next_size(finetune, _resolved(builder), former, number)
    size = replace(size, micro_batch_share=now.micro_batch_share or 1)
    request = memory_request(finetune, _resolved(builder), settings, size)
    estimate = size.applied_to(_resolved(builder)).memory_per_pod_gib
    limited = with_defaults(finetune, _resolved(builder), settings)
    verdict = weigh_host_memory(verdict, limited, estimate, request)
    refusal = find_refusal(verdict, finetune, former, size, request)
    retry = may_retry(verdict, former, finetune.spec.max_restarts, refusal)
    end_attempt(observed, builder, job, verdict.error.code, verdict)
    if number > 1 and find_resumed_step(builder, number) is None:
        record_restart(builder, number, None)
    if retry.is_allowed:
        # An attempt that hangs holds its GPUs until its Job is deleted, so there is no wait.
        has_ended = has_dead_pod(job)
        attempts = [item for item in builder.status.attempts if item.number <= number]
        pause = seconds_to_wait(attempts, settings.restart_seconds) if has_ended else 0.0
        return _start(observed, builder, settings, number + 1, cause=verdict.error, wait=pause)
    error = verdict.error
    if retry.refusal:
        message = f"{error.message}; {retry.refusal}"[:MESSAGE_CHARACTERS]
        error = error.replace(message=message, hint=retry.hint or error.hint)
    builder.set(gpu_seconds=gpu_seconds(observed, builder, number))
    return Plan(builder.fail(error).finish())


def leaves_jobs(observed: Observed, plan: Plan) -> bool:
    """Whether Jobs can be deleted after the plan's status is written, which needs a requeue.

    The Job before an attempt that is recorded and has no Job yet is kept, unless it was released.
    """
    after = replace(observed, finetune=observed.finetune.replace(status=plan.status))
    still_open = {item.number for item in plan.status.attempts if item.ended_at is None}
    is_to_be_made = not still_open <= observed.attempts.keys() and not plan.actions_of(Create)
    newest = max(still_open, default=1)
    is_kept = is_to_be_made and not follows_release(plan.status.attempts, newest)
    kept = newest - 1 if is_kept else None
    return bool(set(_leftovers(after, kept=kept)) - set(plan.actions_of(DeleteJob)))


def _leftovers(observed: Observed, *, kept: int | None = None) -> tuple[DeleteJob, ...]:
    """The Jobs of attempts whose end is in the written status. kept: the Job that marks a wait."""
    ended = {item.number for item in observed.finetune.status.attempts if item.ended_at is not None}
    return tuple(
        DeleteJob(job.name, job.uid)
        for number, job in observed.attempts.items()
        if number in ended and not job.is_going and number != kept
    )


def _record_found(builder: StatusBuilder, job: Job, settings: Settings) -> None:
    """Record an attempt whose Job was created, and whose record was lost."""
    since = stamp(job.created_at or builder.now)
    builder.attempt(job.attempt or 1, started_at=since, **_assigned_size(job, _resolved(builder)))
    _record_queue(builder, settings)


def _assigned_size(job: Job, resolved: Resolved) -> dict[str, Any]:
    """The size in the task of an attempt whose record was lost in a crash of the operator."""
    if not job.task:
        return {}
    task = TrainTask.model_validate_json(job.task)
    plans = resolved.fallbacks or []
    used = (task.zero_stage, task.offload)
    plan = next((plan for plan in plans if (plan.zero_stage, plan.offload) == used), None)
    return size_to_record(AttemptSize(task.micro_batch_share, fallback=plan))


def _resolved(builder: StatusBuilder) -> Resolved:
    assert builder.status.resolved is not None
    return builder.status.resolved
