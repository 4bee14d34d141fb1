"""What a run tells while it goes on: the log's lines, /progress, and rank 0's results.csv."""

import time
from collections import deque

from finetune_api.tasks import TrainTask
from finetune_storage.s3 import Storage
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine.deepspeed import RankCoordinates
from finetune_trainer.engine.mfu import Gpu
from finetune_trainer.evaluation import class_metrics
from finetune_trainer.outputs.results_csv import Results, columns, row
from finetune_trainer.progress import ProgressTracker
from finetune_trainer.step.loss import Totals

LINE_SECONDS = 2.0  # between two lines of the log
SPEED_STEPS = 20  # tokens a second over this many steps


class RunLog:
    """Called by every rank; what only rank 0 does is decided here."""

    def __init__(
        self,
        task: TrainTask,
        place: RankCoordinates,
        progress: ProgressTracker,
        storage: Storage,
        *,
        has_validation: bool,
        gpu: Gpu | None = None,
    ) -> None:
        self._gpu = gpu
        self._steps = task.hyperparameters.steps(task.training_examples)
        self._steps_per_epoch = task.hyperparameters.steps_per_epoch(task.training_examples)
        self._speaks = place.local_rank == 0  # every pod's log tells how far it is
        self._progress = progress
        self._results = (
            Results(task.run.layout.results, storage, _columns(task, has_validation))
            if place.rank == 0
            else None
        )
        self._recent: deque[tuple[float, int]] = deque(maxlen=SPEED_STEPS + 1)
        self._printed_at = 0.0

    def start(self, state: TrainingState) -> None:
        """Training can begin, from `state`."""
        if self._results:
            self._results.start(state.step)
        self._recent.append((time.monotonic(), state.trained_tokens))
        if state.step:
            self._say(f"resumed from the checkpoint of step {state.step}")
            self._progress.update(resumed_from_step=state.step, checkpoint_step=state.step)
        elif state.before is not None:
            self._say(
                f"before the first step: validation loss {_number(state.before.validation_loss)}"
            )
        self._show(state)
        self._progress.training_starts()

    def record_step(
        self,
        state: TrainingState,
        totals: Totals,
        validation: Totals | None,
        rate: float,
        norm: float,
        *,
        wait: float = 0,
        classes: dict[str, float | None] | None = None,
    ) -> None:
        """A step has ended. wait: seconds for its arrays. classes: metrics at an epoch's end."""
        if self._results:
            self._results.add(
                row(
                    step=state.step,
                    elapsed_tokens=state.trained_tokens,
                    elapsed_examples=state.trained_examples,
                    training=totals,
                    validation=validation,
                    learning_rate=rate,
                    gradient_norm=norm,
                    classes=classes,
                )
            )
        now = time.monotonic()
        self._recent.append((now, state.trained_tokens))
        speed, seconds_left = self._speed(state.step)
        self._progress.gauge(gradient_norm=norm, data_wait_seconds=wait, **self._device(speed))
        if validation is not None:
            self._progress.update(
                validation_loss=validation.loss,
                validation_sequence_accuracy=validation.sequence_accuracy,
                validation_token_accuracy=validation.token_accuracy,
            )
        self._show(state)
        self._progress.update(
            stepped=True,
            stage="training",
            detail="",
            training_loss=totals.loss,
            learning_rate=rate,
            tokens_per_second=speed,
            seconds_left=seconds_left,
        )
        is_epoch_end = state.step % self._steps_per_epoch == 0
        if now - self._printed_at >= LINE_SECONDS or is_epoch_end:
            self._printed_at = now
            self._say(self._line(state, totals, validation, rate))
        if classes:
            shown = [f"{name.rpartition('/')[2]} {_number(classes[name])}" for name in classes]
            self._say(f"classification: {', '.join(shown)}")

    def _show(self, state: TrainingState) -> None:
        self._progress.update(
            step=state.step,
            epoch=round(state.step / self._steps_per_epoch, 3),
            trained_tokens=state.trained_tokens,
            before=state.before,
            completed_epochs=state.completed_epochs,
        )

    def _device(self, speed: float | None) -> dict[str, float]:
        """Of this rank's GPU: the most memory it held, and the share of its peak that is used."""
        found: dict[str, float] = {}
        if self._gpu is not None:
            found["gpu_memory_peak_bytes"] = self._gpu.peak_bytes()
            if speed is not None and (share := self._gpu.utilization(speed)) is not None:
                found["model_flops_utilisation"] = share
        return found

    def _speed(self, step: int) -> tuple[float | None, float | None]:
        """Tokens a second and seconds left, from the last steps."""
        (begin, before), (end, after) = self._recent[0], self._recent[-1]
        if end <= begin:
            return None, None
        seconds_a_step = (end - begin) / (len(self._recent) - 1)
        left = (self._steps - step) * seconds_a_step
        return round((after - before) / (end - begin), 1), round(left, 1)

    def _line(
        self,
        state: TrainingState,
        totals: Totals,
        validation: Totals | None,
        rate: float,
    ) -> str:
        speed, seconds_left = self._speed(state.step)
        parts = [
            f"step {state.step}/{self._steps}",
            f"epoch {state.step / self._steps_per_epoch:.2f}",
            f"loss {_number(totals.loss)}",
        ]
        if validation is not None:
            parts.append(f"validation loss {_number(validation.loss)}")
        parts.append(f"learning rate {rate:.3g}")
        if speed is not None and seconds_left is not None:
            parts += [f"{speed:,.0f} tokens/s", f"{_clock(seconds_left)} left"]
        return "  ".join(parts)

    def begin_evaluation(self) -> None:
        self._progress.update(stage="evaluating", detail="the whole validation file")

    def warn(self, text: str) -> None:
        """A line of the log that stands out."""
        self._say(f"warning: {text}")

    def heartbeat(self) -> None:
        """Something has got done that takes longer than a step."""
        self._progress.update(stepped=True)

    def upload(self) -> None:
        """results.csv is in S3 up to here when this returns."""
        if self._results:
            self._results.upload()

    def record_checkpoint_copy(self, seconds: float) -> None:
        """The training has waited so long for a checkpoint's copy."""
        self._progress.gauge(checkpoint_copy_seconds=seconds)
        self._progress.update(stepped=True)

    def record_checkpoint(self, state: TrainingState, seconds: float) -> None:
        """seconds: from the copy until the checkpoint was complete."""
        self._progress.gauge(checkpoint_seconds=seconds)
        self._progress.update(stepped=True, checkpoint_step=state.step)
        self._say(f"checkpoint saved at step {state.step}")

    def begin_publishing(self, detail: str) -> None:
        self._progress.update(stepped=True, stage="publishing", detail=detail)
        self._say(detail)

    @property
    def results(self) -> str:
        """The text of results.csv; rank 0 alone has it."""
        return self._results.text if self._results else ""

    def close(self) -> None:
        """The rows so far are in S3, also after a failure."""
        if self._results:
            self._results.close()

    def _say(self, text: str) -> None:
        if self._speaks:
            print(text, flush=True)


def _columns(task: TrainTask, has_validation: bool) -> list[str]:
    asked = task.classification
    return columns(has_validation, class_metrics.columns(asked) if asked else ())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
