"""The decision: what was observed, the settings and the time in; one plan out.

Level-triggered: it asks what is, never what happened, so it may be called at any time, any number
of times, by any trigger, after any crash.
"""

from dataclasses import replace
from datetime import datetime

from finetune_api import names
from finetune_api.assignments import with_prepared
from finetune_api.finetune_status import ErrorInfo, Resolved
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import Prepared
from finetune_operator.build.network_policy import build_network_policy
from finetune_operator.build.prepare_job import build_prepare_job
from finetune_operator.core.attempts.records import end_open_attempt
from finetune_operator.core.attempts.training import decide_training, find_abandoned, leaves_jobs
from finetune_operator.core.deadlines import find_overdue, seconds_to_next, seconds_to_removal
from finetune_operator.core.observed import Observed
from finetune_operator.core.pending import explain
from finetune_operator.core.plan import Action, Create, DeleteJob, Plan, stamp
from finetune_operator.core.resolution import adopted, resolve
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.success import find_published
from finetune_operator.core.verdict import judge
from finetune_operator.settings import Settings

# After the other ends no Job has to go but for a TTL.
UNFINISHED_STATES = {State.PENDING, State.RUNNING, State.FAILED}
RECHECK_SECONDS = 30.0  # nothing that matters comes without a trigger; this heals a lost one


def decide(seen: Observed, settings: Settings, now: datetime) -> Plan:
    """The whole life of a FineTune. Terminal is terminal: never recomputed from children."""
    finetune = seen.finetune
    if finetune.metadata.deletion_timestamp:
        return Plan(finetune.status)
    if finetune.status.state in names.TERMINAL_STATES:
        return _decide_removal(seen, now)
    plan = _decide_life(seen, settings, now)
    after = finetune.replace(status=plan.status)
    has_ended = plan.status.state in names.TERMINAL_STATES
    if plan.status.state in UNFINISHED_STATES and leaves_jobs(seen, plan):
        return replace(plan, requeue_after=0)
    left = seconds_to_removal(after, now) if has_ended else seconds_to_next(after, now)
    if left is None:
        return plan
    waits = max(left, 0) + 1
    others = waits if plan.requeue_after is None else plan.requeue_after
    return replace(plan, requeue_after=min(others, waits))


def _decide_life(seen: Observed, settings: Settings, now: datetime) -> Plan:
    finetune = seen.finetune
    draft = StatusBuilder(finetune, now)
    if finetune.status.started_at is None:
        draft.set(started_at=stamp(now)).say(
            "Created", f"Created fine-tune: {finetune.metadata.name}"
        )
    if finetune.spec.cancel:
        end_open_attempt(seen, draft, Reason.CANCELLED, "cancelled by spec.cancel")
        return Plan(draft.cancel("cancelled by spec.cancel").finish(), _all_jobs(seen))
    overdue = find_overdue(finetune, now)
    if overdue is not None and find_published(seen) is None:
        waits_for = finetune.status.reason or ""
        is_told = waits_for in names.PENDING_REASONS
        reason = waits_for if is_told else Reason.DEADLINE_EXCEEDED
        end_open_attempt(seen, draft, reason, overdue.message)
        return Plan(draft.fail(overdue).finish(), _all_jobs(seen))
    if seen.foreign:
        return _give_way(seen, draft)
    resolved = draft.status.resolved
    if resolved is None:
        found = resolve(finetune, seen.models, settings)
        if isinstance(found, ErrorInfo):
            return _ended(draft, found)
        resolved = adopted(found, seen.prepare_job.task if seen.prepare_job else None)
        draft.set(resolved=resolved)
    if resolved.hyperparameters is None:
        plan = _decide_prepare(seen, draft, resolved, settings)
        if plan is not None:
            return plan
    if finetune.spec.dry_run:
        return Plan(draft.succeed(Reason.DRY_RUN, _summary(draft.status.resolved)).finish())
    return decide_training(seen, draft, settings)


def _decide_removal(seen: Observed, now: datetime) -> Plan:
    """Its TTL takes the Jobs and pods of an ended FineTune; status, Model and S3 stay.

    Of one that failed, what still works goes at once.
    """
    status = seen.finetune.status
    abandoned = find_abandoned(seen) if status.state == State.FAILED else ()
    left = seconds_to_removal(seen.finetune, now)
    if left is None:
        return Plan(status, abandoned)
    if left > 0:
        return Plan(status, abandoned, left + 1)
    return Plan(seen.finetune.status, _all_jobs(seen))


def _all_jobs(seen: Observed) -> tuple[Action, ...]:
    return tuple(DeleteJob(job.name, job.uid) for job in seen.jobs if not job.is_going)


def _decide_prepare(
    seen: Observed, draft: StatusBuilder, resolved: Resolved, settings: Settings
) -> Plan | None:
    """None once the data is known to be good: then the draft holds what was resolved."""
    finetune, job = seen.finetune, seen.prepare_job
    if job is None:
        draft.pending(Stage.VALIDATING, Reason.VALIDATING, "checking the data")
        actions = [Create(build_prepare_job(finetune, resolved, settings))]
        if settings.pod_network is not None:  # before any pod is there
            actions.insert(0, Create(build_network_policy(finetune, settings.pod_network)))
        return Plan(draft.finish(), tuple(actions), RECHECK_SECONDS)
    prepared = next(
        (
            pod.outcome.prepared
            for pod in job.pods
            if pod.exit_code == 0 and pod.outcome and pod.outcome.prepared
        ),
        None,
    )
    if prepared is not None:
        _take_prepared(draft, resolved, prepared)
        return None
    verdict = judge(job)
    if verdict is not None and (verdict.is_users or job.has_failed):
        return _ended(draft, verdict.error)
    if verdict is not None:
        words = f"checking the data failed and is tried again: {verdict.error.message}"
        draft.pending(Stage.VALIDATING, verdict.error.code, words[:2048])
    else:
        reason, message = explain(job, 1)
        if reason == Reason.STARTING:
            reason, message = Reason.VALIDATING, "checking the data"
        draft.pending(Stage.VALIDATING, reason, message)
    return Plan(draft.finish(), (), RECHECK_SECONDS)


def _take_prepared(draft: StatusBuilder, resolved: Resolved, prepared: Prepared) -> None:
    draft.set(resolved=with_prepared(resolved, prepared))
    # Advice is kept in the story; a Kubernetes Event each would drown the rest.
    for sentence in (prepared.advice or [])[:8]:
        draft.say("Advice", sentence, "warning")


def _ended(draft: StatusBuilder, error: ErrorInfo) -> Plan:
    return Plan(draft.fail(error).finish())


def _give_way(seen: Observed, draft: StatusBuilder) -> Plan:
    """Somebody else's object is left alone. A model that is in S3 already stays there, and told."""
    listed = ", ".join(seen.foreign)
    published = find_published(seen)
    if published is None:
        error = ErrorInfo(
            code=Reason.FOREIGN_OBJECT,
            message=f"an object of somebody else has a name that this FineTune needs: {listed}",
            hint="delete or rename that object, then create the FineTune again",
        )
    else:
        trained = published[1]
        draft.set(
            model_uri=trained.model_uri,
            result_files=trained.result_files,
            trained_tokens=trained.trained_tokens,
        )
        error = ErrorInfo(
            code=Reason.FOREIGN_OBJECT,
            param="suffix",
            message=f"it is trained, and its name {trained.fine_tuned_model} is taken: {listed}; "
            f"its files are complete at {trained.model_uri}",
            hint="write a Model with a name and id of its own and these files, or train again "
            "with another suffix",
        )
    end_open_attempt(seen, draft, Reason.FOREIGN_OBJECT, error.message)
    return _ended(draft, error)


def _summary(resolved: Resolved | None) -> str:
    assert resolved is not None and resolved.hyperparameters is not None
    batch = resolved.hyperparameters.batch_size
    memory = (
        f", about {resolved.memory_per_rank_gib:g} GiB a rank (ZeRO {resolved.zero_stage}, "
        f"offload {resolved.offload or 'none'})"
        if resolved.memory_per_rank_gib
        else ""
    )
    return (
        f"dry run: {resolved.training_examples} examples, {resolved.training_tokens} tokens an "
        f"epoch, {resolved.steps} steps of {batch} examples{memory}"
    )
