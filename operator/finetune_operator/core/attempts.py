"""The training: one Job an attempt, the whole gang restarts, and only one verdict counts."""

from dataclasses import replace

from finetune_api.finetune import ErrorInfo, Progress, Resolved
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import ProgressReport, Trained
from finetune_api.tasks import TrainTask
from finetune_operator.build.identity import attempt_name
from finetune_operator.build.model_resource import build_model
from finetune_operator.build.train_job import build_train_job
from finetune_operator.core.deadlines import find_stall
from finetune_operator.core.draft import Draft
from finetune_operator.core.endings import close_former, close_others, end_attempt, gpu_seconds
from finetune_operator.core.memory import next_share
from finetune_operator.core.memory import recorded as recorded_share
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.pending import explain
from finetune_operator.core.plan import Action, Create, CreateService, DeleteJob, Plan, stamp
from finetune_operator.core.progress import apply_progress, is_due, say_epochs, to_progress
from finetune_operator.core.queue import find_withdrawal, say_position
from finetune_operator.core.retry import may_retry
from finetune_operator.core.verdict import Verdict, judge, may_say_more
from finetune_operator.settings import Settings

PENDING_SECONDS = 15.0
SLOW_START_SECONDS = 60
LISTEN_SECONDS = 2.0  # until the next look, while the cause of a failure is not told yet


def decide_training(seen: Observed, draft: Draft, settings: Settings) -> Plan:
    """The draft's `resolved` is whole: create, watch, restart or end the current attempt."""
    current = _current_attempt(seen, draft)
    job = seen.attempts.get(current)
    recorded = {attempt.number: attempt for attempt in seen.finetune.status.attempts}.get(current)
    published = _find_published(seen)
    if published is not None:
        close_former(seen, draft, current, but=published[0])
        return _succeed(seen, draft, *published, close_others(seen, draft, published[0]))
    was_suspended = recorded is not None and recorded.reason == Reason.SUSPENDED
    if seen.finetune.spec.suspend and (job is None or was_suspended):
        return Plan(draft.suspend().finish(), _leftovers(seen))
    if was_suspended:
        draft.say_turn("Resumed", "Fine-tune resumed")
        return _start(seen, draft, settings, current + 1)
    if job is None and recorded is None:
        return _start(seen, draft, settings, current)
    if job is None or job.is_going:
        return _deleted(draft, current)
    close_former(seen, draft, current)
    if recorded is None:
        draft.attempt(current, micro_batch_share=_told_share(job))
    actions = _leftovers(seen)
    if job.name not in seen.services:
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


def has_succeeded(seen: Observed) -> bool:
    """The model is published already, whatever deadline passes before the status says so."""
    return _find_published(seen) is not None


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


def _find_published(seen: Observed) -> tuple[Job, Trained] | None:
    """The attempt whose model is in S3: it counts, even when a later one began meanwhile."""
    found = [(job, _trained(job)) for job in seen.attempts.values()]
    return next(((job, trained) for job, trained in found if trained is not None), None)


def _current_attempt(seen: Observed, draft: Draft) -> int:
    """The newest that is recorded or exists: a crash between the two must not make a third."""
    return max([1, *seen.attempts, *(attempt.number for attempt in draft.status.attempts)])


def _start(seen: Observed, draft: Draft, settings: Settings, number: int, why: str = "") -> Plan:
    finetune, resolved = seen.finetune, _resolved(draft)
    queue = finetune.spec.queue_name
    share = next_share(draft.status.attempts, number)
    draft.attempt(number, micro_batch_share=recorded_share(share))
    if queue and not settings.kueue_version:
        draft.say("Enqueued", f"Fine-tune enqueued in queue {queue}")
    nodes = finetune.spec.resources.nodes
    message = why or f"starting {nodes} {'pod' if nodes == 1 else 'pods'}"
    reason = Reason.RESTARTING if why else Reason.STARTING
    draft.pending(Stage.QUEUED if queue else Stage.STARTING, reason, message)
    actions: tuple[Action, ...] = (
        Create(build_train_job(finetune, resolved, settings, number, share)),
        CreateService(number, attempt_name(finetune, number)),
    )
    return Plan(draft.finish(), actions, PENDING_SECONDS)


def _watch(
    seen: Observed, draft: Draft, job: Job, settings: Settings, *, was_running: bool
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
        _say_restarted(draft, job.attempt, report.resumed_from_step or 0)
    apply_progress(draft, report, settings.progress_seconds)


def _tell_slow_start(
    draft: Draft, job: Job, report: ProgressReport | None, settings: Settings
) -> None:
    """A large model downloads for minutes: after the first one, say how far it is."""
    started = job.started_at
    if report is None or started is None:
        return
    is_slow = (draft.now - started).total_seconds() > SLOW_START_SECONDS
    if is_slow and is_due(draft.status.progress, draft.now, settings.progress_seconds):
        draft.set(progress=to_progress(report, draft.now))


def _say_restarted(draft: Draft, number: int, step: int) -> None:
    draft.attempt(number, resumed_from_step=step)
    _say_cause(draft, number, f"Fine-tune restarted from step {step}")


def _say_cause(draft: Draft, number: int, words: str) -> None:
    """Each restart is one Event: when its attempt works, or when it ends without having worked."""
    attempts = {attempt.number: attempt for attempt in draft.status.attempts}
    former = attempts.get(number - 1)
    if former is not None and former.reason == Reason.SUSPENDED:
        return  # told as resumed
    why = former.message if former and former.message else "unknown"
    draft.say("Restarted", f"{words}: {why}")


def _trained(job: Job) -> Trained | None:
    """Rank 0 ended well, and the manifest is in S3: its digest came with the message."""
    pod = job.rank0
    if pod is None or pod.exit_code != 0 or pod.outcome is None:
        return None
    return pod.outcome.trained


def _succeed(
    seen: Observed, draft: Draft, job: Job, trained: Trained, actions: tuple[Action, ...]
) -> Plan:
    finetune, resolved = seen.finetune, _resolved(draft)
    assert resolved.hyperparameters is not None
    number = job.attempt or 1
    if seen.progress is not None:
        draft.set(progress=to_progress(seen.progress, draft.now))
    draft.say("BaseModelLoaded", f"Base model loaded: {resolved.base.name}")
    draft.say("Started", "Fine-tune started")
    say_epochs(draft, trained.epochs or [], resolved.hyperparameters.n_epochs)
    draft.say("ModelUploaded", f"Uploaded model: {trained.fine_tuned_model}")
    for uri in trained.result_files[:1]:
        draft.say("ResultsUploaded", f"Uploaded result file: {uri}")
    draft.say("Succeeded", "Fine-tune succeeded")
    end_attempt(seen, draft, job, Reason.SUCCEEDED, None)
    _complete_progress(draft, trained)
    draft.set(
        fine_tuned_model=trained.fine_tuned_model,
        model_uri=trained.model_uri,
        result_files=trained.result_files,
        trained_tokens=trained.trained_tokens,
        gpu_seconds=gpu_seconds(seen, draft, number),
    )
    draft.succeed(Reason.SUCCEEDED, f"the model is {trained.fine_tuned_model}")
    create = Create(build_model(finetune, resolved, trained))
    return Plan(draft.finish(), (*actions, create))


def _restart_or_fail(
    seen: Observed, draft: Draft, settings: Settings, job: Job, verdict: Verdict
) -> Plan:
    number = job.attempt or 1
    former = [attempt for attempt in draft.status.attempts if attempt.number < number]
    now = next(item for item in draft.status.attempts if item.number == number)
    share = now.micro_batch_share or 1
    retry = may_retry(verdict, former, seen.finetune.spec.max_restarts, share)
    end_attempt(seen, draft, job, verdict.error.code, verdict)
    if number > 1 and now.resumed_from_step is None:
        _say_cause(draft, number, f"Fine-tune restarted, attempt {number}")
    if retry.is_allowed:
        halved = " with half the micro-batch" if verdict.error.code == Reason.OUT_OF_MEMORY else ""
        why = f"attempt {number + 1} starts{halved}: {verdict.error.message}"
        return _start(seen, draft, settings, number + 1, why[:2048])
    error = verdict.error
    if retry.why_not:
        message = f"{error.message}; {retry.why_not}"[:2048]
        error = error.replace(message=message, hint=retry.hint or error.hint)
    draft.set(gpu_seconds=gpu_seconds(seen, draft, number))
    return Plan(draft.fail(error).finish())


def _deleted(draft: Draft, number: int) -> Plan:
    """Somebody removed the Job of a running attempt; training never starts again by itself."""
    message = f"the Job of attempt {number} was deleted"
    hint = "create a new FineTune to train again"
    draft.attempt(number, ended_at=stamp(draft.now), reason=Reason.JOB_DELETED, message=message)
    error = ErrorInfo(code=Reason.JOB_DELETED, message=message, hint=hint)
    return Plan(draft.fail(error).finish())


def leaves_jobs(seen: Observed, plan: Plan) -> bool:
    """Once the plan's status is written, Jobs may go: nothing but a requeue does that.

    Not while the attempt after them is recorded and has no Job yet.
    """
    after = replace(seen, finetune=seen.finetune.replace(status=plan.status))
    if plan.status.state == State.FAILED:
        return bool(set(find_abandoned(after)) - set(plan.actions_of(DeleteJob)))
    still_open = {item.number for item in plan.status.attempts if item.ended_at is None}
    is_to_be_made = not still_open <= seen.attempts.keys() and not plan.actions_of(Create)
    return not is_to_be_made and bool(set(_leftovers(after)) - set(plan.actions_of(DeleteJob)))


def _leftovers(seen: Observed) -> tuple[Action, ...]:
    """Jobs of attempts go once the written status tells of their end."""
    told = {item.number for item in seen.finetune.status.attempts if item.ended_at is not None}
    return tuple(
        DeleteJob(job.name, job.uid)
        for number, job in seen.attempts.items()
        if number in told and not job.is_going
    )


def _told_share(job: Job) -> float | None:
    """What the pods of an attempt were told, when the operator died before it wrote the status."""
    task = TrainTask.model_validate_json(job.task) if job.task else None
    return recorded_share(task.micro_batch_share) if task else None


def _complete_progress(draft: Draft, trained: Trained) -> None:
    last = trained.epochs[-1] if trained.epochs else None
    known = draft.status.progress or Progress()
    loss = trained.training_loss
    draft.set(
        progress=known.replace(
            step=trained.steps,
            steps=trained.steps,
            epoch=last.epoch if last else known.epoch,
            percent="100 %",
            loss=None if loss is None else round(loss, 4),
            validation_loss=last.validation_loss if last else known.validation_loss,
            validation_sequence_accuracy=(
                last.validation_sequence_accuracy if last else known.validation_sequence_accuracy
            ),
            validation_token_accuracy=(
                last.validation_token_accuracy if last else known.validation_token_accuracy
            ),
            eta=None,
            detail=None,
            updated_at=stamp(draft.now),
        )
    )


def _resolved(draft: Draft) -> Resolved:
    assert draft.status.resolved is not None
    return draft.status.resolved
