"""The progress of rank 0 in the status: rounded, throttled, and with an Event for each epoch."""

from datetime import datetime, timedelta

from finetune_api.finetune_status import EventEntry, Progress
from finetune_api.outcome import EpochMetrics, ProgressReport
from finetune_operator import messages
from finetune_operator.core.plan import stamp
from finetune_operator.core.status_builder import StatusBuilder


def apply_progress(builder: StatusBuilder, report: ProgressReport, every: float) -> None:
    """Update the progress at most once in `every` seconds, but immediately after an epoch."""
    record_epochs(builder, report.before, report.completed_epochs, report.epochs)
    has_news = builder.status.events != builder.finetune.status.events
    if has_news or is_due(builder.status.progress, builder.now, every):
        progress = to_progress(report, builder.now)
        if _without_time(progress) != _without_time(builder.status.progress):
            builder.set(progress=progress, trained_tokens=report.trained_tokens)


def is_due(progress: Progress | None, now: datetime, every: float) -> bool:
    if progress is None or progress.updated_at is None:
        return True
    return now - datetime.fromisoformat(progress.updated_at) >= timedelta(seconds=every)


def to_progress(report: ProgressReport, now: datetime) -> Progress:
    left = report.seconds_left
    return Progress(
        step=report.step,
        steps=report.steps,
        epoch=round(report.epoch, 2),
        percent=f"{min(100, 100 * report.step // report.steps)} %" if report.steps else "",
        loss=_rounded(report.training_loss),
        validation_loss=_rounded(report.validation_loss),
        validation_sequence_accuracy=_rounded(report.validation_sequence_accuracy),
        validation_token_accuracy=_rounded(report.validation_token_accuracy),
        learning_rate=report.learning_rate,
        tokens_per_second=round(report.tokens_per_second, 1) if report.tokens_per_second else None,
        eta=None if left is None else stamp(now + timedelta(seconds=left)),
        detail=report.detail[:512] or None,
        updated_at=stamp(now),
    )


def record_epochs(
    builder: StatusBuilder, before: EpochMetrics | None, done: list[EpochMetrics], epochs: int
) -> None:
    """Record the epochs after the last recorded one: earlier Events may have left the status.

    before: metrics of the fine-tuned model that the training continues from.
    """
    last = last_recorded_epoch(builder.status.events)
    if before is not None and not last and messages.format_metrics(before):
        builder.record_event(messages.base_model_measured(before))
    known = _epochs_of(builder)
    for epoch in done:
        if last < epoch.epoch <= known:
            builder.record_event(messages.epoch_completed(epoch, epochs))


def _epochs_of(builder: StatusBuilder) -> int:
    """The number of epochs that the prepare Job resolved, whatever a pod reports."""
    resolved = builder.status.resolved
    hyperparameters = resolved.hyperparameters if resolved else None
    return hyperparameters.n_epochs if hyperparameters else 0


def last_recorded_epoch(events: list[EventEntry]) -> int:
    """The number of the last epoch that has an Event, 0 for none."""
    keys = (entry.key or "" for entry in events if entry.reason == messages.EPOCH_COMPLETED)
    return max((int(key) for key in keys if key.isdigit()), default=0)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _without_time(progress: Progress | None) -> Progress | None:
    return progress and progress.replace(updated_at=None, eta=None)
