"""The decision: from the observed state, the settings, and the time to one plan.

It is level-triggered: it depends on the present state and not on what has happened. Any trigger may
call it at any time, any number of times, and after any crash.
"""

from dataclasses import replace
from datetime import datetime

from finetune_api import names
from finetune_api.assignments import with_prepared
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import ErrorInfo, Resolved
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import Prepared, Trained
from finetune_operator import messages
from finetune_operator.build.network_policy import build_network_policy
from finetune_operator.build.prepare_job import build_prepare_job
from finetune_operator.core.attempts.adoption import adopt, find_adoption, find_name_in_use
from finetune_operator.core.attempts.records import end_open_attempt
from finetune_operator.core.attempts.removal import all_jobs, decide_removal, find_stale_prepare
from finetune_operator.core.attempts.results import awaits_pods, find_loss, find_prepared
from finetune_operator.core.attempts.success import find_published
from finetune_operator.core.attempts.training import (
    ROOT_CAUSE_POLL_SECONDS,
    decide_training,
    leaves_jobs,
)
from finetune_operator.core.deadlines import find_overdue, seconds_to_next
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.pending import explain
from finetune_operator.core.plan import Create, DeleteJob, Plan, stamp
from finetune_operator.core.resolution import adopted, resolve
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import judge
from finetune_operator.messages import StatusMessage
from finetune_operator.settings import Settings

CHECKS_AT_MOST = 3  # of the data, after one whose result was lost
ADVICE_AT_MOST = 8  # Events
RECHECK_SECONDS = 30.0  # every change comes with a trigger; this makes up for a lost one


def decide(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Decide on a FineTune at any point of its life. A terminal state is never recomputed."""
    finetune = observed.finetune
    if finetune.metadata.deletion_timestamp:
        return Plan(finetune.status)
    if finetune.status.state in names.TERMINAL_STATES:
        return decide_removal(observed, now)
    plan = _decide_unfinished(observed, settings, now)
    after = finetune.replace(status=plan.status)
    if plan.status.state in names.TERMINAL_STATES:
        rest = decide_removal(replace(observed, finetune=after), now)
        is_complete = all(action in plan.actions for action in rest.actions)
        return replace(plan, requeue_after=rest.requeue_after if is_complete else 0)
    plan = replace(plan, actions=(*plan.actions, *find_stale_prepare(observed, now)))
    if leaves_jobs(observed, plan):
        return replace(plan, requeue_after=0)
    left = seconds_to_next(after, now)
    if left is None:
        return plan
    waits = max(left, 0) + 1
    others = waits if plan.requeue_after is None else plan.requeue_after
    return replace(plan, requeue_after=min(others, waits))


def _decide_unfinished(observed: Observed, settings: Settings, now: datetime) -> Plan:
    finetune = observed.finetune
    builder = StatusBuilder(finetune, now)
    if finetune.status.started_at is None:
        builder.set(started_at=stamp(now))
        builder.record_event(messages.created(finetune.metadata.name))
    if finetune.spec.cancel:
        message = messages.CANCELLED_BY_USER
        end_open_attempt(observed, builder, message.reason, message.message)
        return Plan(builder.cancel().finish(), all_jobs(observed))
    overdue = find_overdue(finetune, now)
    published = _find_result(observed)
    waits_for_model = published is not None and _waits_for_model(finetune, overdue)
    if overdue is not None and (published is None or waits_for_model):
        pending_reason = finetune.status.reason or ""
        is_known = pending_reason in names.PENDING_REASONS | names.REFUSAL_REASONS
        reason = pending_reason if is_known else Reason.DEADLINE_EXCEEDED
        if published is not None:
            _record_files(builder, published)
            reason = Reason.SUCCEEDED
        end_open_attempt(observed, builder, reason, overdue.message)
        return Plan(builder.fail(overdue).finish(), all_jobs(observed))
    taken = find_name_in_use(observed)
    if taken is not None:
        builder.record_event(messages.not_adopted(taken))
    elif observed.foreign:
        return _fail_on_taken_name(observed, builder)
    resolved = builder.status.resolved
    if resolved is None:
        found = resolve(finetune, observed.models, settings)
        if isinstance(found, ErrorInfo):
            return _ended(builder, found)
        resolved = adopted(found, observed.prepare_job.task if observed.prepare_job else None)
        builder.set(resolved=resolved)
    if resolved.hyperparameters is None:
        plan = _decide_prepare(observed, builder, resolved, settings)
        if plan is not None:
            return plan
    if finetune.spec.dry_run:
        return Plan(builder.succeed(_summarize(builder.status.resolved)).finish())
    adoption = find_adoption(observed, builder.status.resolved)
    if adoption is not None:
        return adopt(observed, builder, adoption)
    return decide_training(observed, builder, settings)


def _find_result(observed: Observed) -> Trained | None:
    """The model that the FineTune has published, or adopts."""
    resolved = observed.finetune.status.resolved
    published = find_published(observed, resolved)
    if published is not None:
        return published[1]
    adoption = find_adoption(observed, resolved)
    return adoption.trained if adoption is not None else None


def _decide_prepare(
    observed: Observed, builder: StatusBuilder, resolved: Resolved, settings: Settings
) -> Plan | None:
    """The plan while the data is checked; None once the builder has the prepared data."""
    finetune, job = observed.finetune, observed.prepare_job
    if job is None:
        builder.pending(Stage.VALIDATING, messages.CHECKING_DATA)
        actions = [Create(build_prepare_job(finetune, resolved, settings))]
        if settings.pod_network is not None:  # before the first pod
            actions.insert(0, Create(build_network_policy(finetune, settings.pod_network)))
        return Plan(builder.finish(), tuple(actions), RECHECK_SECONDS)
    prepared = find_prepared(job)
    if prepared is not None:
        if len(finetune.spec.training_data) > 1 and prepared.training_files is None:
            return _ended(builder, messages.one_training_file(resolved.runtime.prepare_image))
        _apply_prepared(builder, resolved, prepared)
        return None
    if awaits_pods(job, builder.now):
        builder.pending(Stage.VALIDATING, messages.CHECKING_DATA)
        return Plan(builder.finish(), (), ROOT_CAUSE_POLL_SECONDS)
    loss = find_loss(job, messages.PREPARE_JOB, builder.now)
    if loss is not None and not job.is_going:
        return _check_again(builder, job, loss)
    verdict = judge(job)
    if verdict is not None and (verdict.is_users or job.has_failed):
        return _ended(builder, verdict.error)
    if verdict is not None and not job.is_suspended:  # a queue evicts pods of a suspended Job
        builder.pending(Stage.VALIDATING, messages.checking_data_again(verdict.error))
    else:
        message = explain(job, 1)
        if message.reason == Reason.STARTING:
            message = messages.CHECKING_DATA
        builder.pending(Stage.VALIDATING, message)
    return Plan(builder.finish(), (), RECHECK_SECONDS)


def _check_again(builder: StatusBuilder, job: Job, loss: ErrorInfo) -> Plan:
    """Delete a prepare Job whose result is lost, once the status has it.

    The next one finds the dataset in S3.
    """
    told = messages.checked_again(job.uid, loss)
    builder.record_event(told)
    losses = builder.count_events(Reason.RESULT_LOST, messages.PREPARE_KEY)
    if losses > CHECKS_AT_MOST:
        message = f"{loss.message}; {messages.results_lost_in_a_row(losses)}"
        return _ended(builder, loss.replace(message=message))
    builder.pending(Stage.VALIDATING, messages.checking_data_again(loss))
    deletions = (DeleteJob(job.name, job.uid),) if builder.was_recorded(told) else ()
    return Plan(builder.finish(), deletions, 0)


def _apply_prepared(builder: StatusBuilder, resolved: Resolved, prepared: Prepared) -> None:
    builder.set(resolved=with_prepared(resolved, prepared))
    for sentence in (prepared.advice or [])[:ADVICE_AT_MOST]:
        builder.record_event(messages.advice(sentence))


def _ended(builder: StatusBuilder, error: ErrorInfo) -> Plan:
    return Plan(builder.fail(error).finish())


def _fail_on_taken_name(observed: Observed, builder: StatusBuilder) -> Plan:
    """Fail and leave the object of the other owner. The status shows a published model."""
    objects = ", ".join(map(str, observed.foreign))
    command = observed.foreign[0].to_command(observed.finetune.metadata.namespace)
    published = find_published(observed, observed.finetune.status.resolved)
    if published is None:
        error = messages.name_taken(objects, command)
    else:
        trained = published[1]
        _record_files(builder, trained)
        model, uri = trained.fine_tuned_model, trained.model_uri
        error = messages.model_name_taken(model, uri, objects, command)
    end_open_attempt(observed, builder, error.code, error.message)
    return _ended(builder, error)


def _waits_for_model(finetune: FineTune, overdue: ErrorInfo | None) -> bool:
    """Whether the API server has refused the Model of a published training for too long."""
    status = finetune.status
    is_waiting = status.state == State.PENDING and status.stage == Stage.PUBLISHING
    return is_waiting and overdue is not None and overdue.param == "pendingDeadlineSeconds"


def _record_files(builder: StatusBuilder, trained: Trained) -> None:
    """Record the published files of a training without a Model."""
    builder.set(
        model_uri=trained.model_uri,
        result_files=trained.result_files,
        trained_tokens=trained.trained_tokens,
    )


def _summarize(resolved: Resolved | None) -> StatusMessage:
    """The result of a dry run."""
    assert resolved is not None and resolved.hyperparameters is not None
    gib, memory = resolved.memory_per_rank_gib, ""
    if gib:
        stage, offload, pod = resolved.zero_stage, resolved.offload, resolved.memory_per_pod_gib
        memory = messages.memory_estimate(gib, stage, offload, pod)
    return messages.dry_run_passed(
        resolved.training_examples or 0,
        resolved.training_tokens or 0,
        resolved.steps or 0,
        resolved.hyperparameters.batch_size,
        memory,
    )
