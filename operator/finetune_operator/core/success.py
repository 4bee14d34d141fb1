"""The good end: which attempt published the model, and what the status and a Model say of it."""

from finetune_api.finetune_status import Progress
from finetune_api.names import Reason
from finetune_api.outcome import Trained
from finetune_operator.build.model_resource import build_model
from finetune_operator.core.attempts.records import end_attempt, gpu_seconds
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.plan import Action, Create, Plan, stamp
from finetune_operator.core.progress import say_epochs, to_progress
from finetune_operator.core.status_builder import StatusBuilder


def find_published(seen: Observed) -> tuple[Job, Trained] | None:
    """The attempt whose model is in S3.

    It counts, whatever later attempt began and whatever deadline passed before the status says so.
    """
    found = [(job, _trained(job)) for job in seen.attempts.values()]
    return next(((job, trained) for job, trained in found if trained is not None), None)


def _trained(job: Job) -> Trained | None:
    """Rank 0 ended well, and the manifest is in S3: its digest came with the message."""
    pod = job.rank0
    if pod is None or pod.exit_code != 0 or pod.outcome is None:
        return None
    return pod.outcome.trained


def succeed(
    seen: Observed, draft: StatusBuilder, job: Job, trained: Trained, actions: tuple[Action, ...]
) -> Plan:
    finetune, resolved = seen.finetune, draft.status.resolved
    assert resolved is not None and resolved.hyperparameters is not None
    number = job.attempt or 1
    if seen.progress is not None:
        draft.set(progress=to_progress(seen.progress, draft.now))
    draft.say("BaseModelLoaded", f"Base model loaded: {resolved.base.name}")
    draft.say("Started", "Fine-tune started")
    end_attempt(seen, draft, job, Reason.SUCCEEDED, None)
    epochs = resolved.hyperparameters.n_epochs
    say_epochs(draft, trained.before, trained.epochs or [], epochs)
    draft.say("ModelUploaded", f"Uploaded model: {trained.fine_tuned_model}")
    for uri in trained.result_files[:1]:
        draft.say("ResultsUploaded", f"Uploaded result file: {uri}")
    if trained.has_diverged:
        draft.say(
            "Diverged",
            f"The training loss ended at {trained.training_loss:.4f}, above the "
            f"{trained.first_loss:.4f} of the first step: the model has unlearned, train again "
            "with a tenth of the learning rate",
            "warning",
        )
    draft.say("Succeeded", "Fine-tune succeeded")
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


def _complete_progress(draft: StatusBuilder, trained: Trained) -> None:
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
