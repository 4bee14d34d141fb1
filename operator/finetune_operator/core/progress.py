"""Rank 0's progress in the status: rounded, throttled, and in words where people look."""

import re
from datetime import datetime, timedelta

from finetune_api.finetune_status import Progress
from finetune_api.outcome import EpochMetrics, ProgressReport
from finetune_operator.core.plan import stamp
from finetune_operator.core.status_builder import StatusBuilder

EPOCH = re.compile(r"Completed epoch (\d+)/")


def apply_progress(draft: StatusBuilder, report: ProgressReport, every: float) -> None:
    """At most one write in `every` seconds, but an epoch's end at once."""
    say_epochs(draft, report.before, report.completed_epochs, report.epochs)
    has_news = draft.status.events != draft.finetune.status.events
    if has_news or is_due(draft.status.progress, draft.now, every):
        progress = to_progress(report, draft.now)
        if _without_time(progress) != _without_time(draft.status.progress):
            draft.set(progress=progress, trained_tokens=report.trained_tokens)


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
        percent=f"{100 * report.step // report.steps} %" if report.steps else "",
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


def say_epochs(
    draft: StatusBuilder, before: EpochMetrics | None, done: list[EpochMetrics], epochs: int
) -> None:
    """Those that were not told yet; the story keeps its newest lines, so their last one counts.

    before: of the model that the training continues from.
    """
    told = [EPOCH.match(event.message) for event in draft.status.events]
    last = max((int(found[1]) for found in told if found), default=0)
    if before is not None and not last and (words := _figures(before)):
        draft.say("BaseModelMeasured", f"Before training: {', '.join(words)}")
    for epoch in done:
        if epoch.epoch > last:
            words = _figures(epoch)
            details = f" ({', '.join(words)})" if words else ""
            draft.say("EpochCompleted", f"Completed epoch {epoch.epoch}/{epochs}{details}")


def _figures(epoch: EpochMetrics) -> list[str]:
    """What was measured, in words."""
    figures = [
        ("training loss", epoch.training_loss),
        ("validation loss", epoch.validation_loss),
        ("validation sequence accuracy", epoch.validation_sequence_accuracy),
    ]
    words = [f"{name} {value:.4f}" for name, value in figures if value is not None]
    if epoch.learning_rate is not None:
        words.append(f"learning rate {epoch.learning_rate:.3g}")
    return words


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _without_time(progress: Progress | None) -> Progress | None:
    return progress and progress.replace(updated_at=None, eta=None)
