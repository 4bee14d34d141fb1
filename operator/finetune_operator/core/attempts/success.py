"""Success: the attempt that published the model, the final status, and the Model resource."""

from finetune_api.finetune_status import Progress, Resolved
from finetune_api.names import Reason
from finetune_api.outcome import Trained
from finetune_operator import messages
from finetune_operator.build.model_resource import build_model
from finetune_operator.core.attempts.progress import record_epochs, to_progress
from finetune_operator.core.attempts.records import end_attempt, gpu_seconds
from finetune_operator.core.attempts.results import find_trained
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.plan import Action, Create, Plan, stamp
from finetune_operator.core.status_builder import StatusBuilder


def find_published(observed: Observed, resolved: Resolved | None) -> tuple[Job, Trained] | None:
    """The attempt whose model is in S3, or the lookup Job that found it there.

    It decides, even if a later attempt has begun or a deadline has passed in the meantime.
    """
    lookup = observed.lookup_job
    jobs = [*observed.attempts.values(), *([lookup] if lookup else [])]
    found = [(job, find_trained(job, observed.finetune, resolved)) for job in jobs]
    return next(((job, trained) for job, trained in found if trained is not None), None)


def succeed(
    observed: Observed,
    builder: StatusBuilder,
    job: Job,
    trained: Trained,
    actions: tuple[Action, ...],
) -> Plan:
    finetune, resolved = observed.finetune, builder.status.resolved
    assert resolved is not None and resolved.hyperparameters is not None
    number = job.attempt or max(item.number for item in builder.status.attempts)
    if observed.progress is not None:
        builder.set(progress=to_progress(observed.progress, builder.now))
    builder.record_event(messages.base_model_loaded(resolved.base.name))
    builder.record_event(messages.STARTED)
    if job.attempt is None:  # the lookup Job: the attempt ended when its own Job was deleted
        builder.attempt(number, reason=Reason.SUCCEEDED, message=None)
    else:
        end_attempt(observed, builder, job, Reason.SUCCEEDED, None)
    epochs = resolved.hyperparameters.n_epochs
    record_epochs(builder, trained.before, trained.epochs or [], epochs)
    builder.record_event(messages.model_uploaded(trained.fine_tuned_model))
    for uri in trained.result_files[:1]:
        builder.record_event(messages.results_uploaded(uri))
    if trained.has_diverged:
        first, last = trained.first_loss or 0.0, trained.training_loss or 0.0
        builder.record_event(messages.diverged(first, last))
    builder.record_event(messages.SUCCEEDED)
    complete_progress(builder, trained)
    builder.set(
        fine_tuned_model=trained.fine_tuned_model,
        model_uri=trained.model_uri,
        result_files=trained.result_files,
        trained_tokens=trained.trained_tokens,
        gpu_seconds=gpu_seconds(observed, builder, number),
    )
    builder.succeed(messages.model_ready(trained.fine_tuned_model))
    create = Create(build_model(finetune, resolved, trained))
    return Plan(builder.finish(), (create, *actions))


def complete_progress(builder: StatusBuilder, trained: Trained) -> None:
    """Record the last step and the final metrics."""
    last = trained.epochs[-1] if trained.epochs else None
    known = builder.status.progress or Progress()
    loss = trained.training_loss
    builder.set(
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
            updated_at=stamp(builder.now),
        )
    )
