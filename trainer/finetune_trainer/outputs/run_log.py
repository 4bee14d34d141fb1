"""The record of a running training: log lines, `/progress`, and results.csv of rank 0."""

import time
from collections import deque

from finetune_api.names import Stage
from finetune_api.tasks import TrainTask
from finetune_storage.s3 import Storage
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine.deepspeed import RankCoordinates
from finetune_trainer.engine.mfu import Gpu
from finetune_trainer.evaluation import class_metrics
from finetune_trainer.outputs.results_csv import Results, columns, row
from finetune_trainer.progress import ProgressTracker
from finetune_trainer.step.loss import Totals

LINE_SECONDS = 2.0  # at least, between two log lines
THROUGHPUT_STEPS = 20  # the throughput is a mean over this many steps


class RunLog:
    """Every rank calls the same methods: rank 0 writes results.csv, local rank 0 prints the log."""

    def __init__(
        self,
        task: TrainTask,
        coordinates: RankCoordinates,
        progress: ProgressTracker,
        storage: Storage,
        *,
        has_validation: bool,
        gpu: Gpu | None = None,
    ) -> None:
        self._gpu = gpu
        self._steps = task.hyperparameters.steps(task.training_examples)
        self._steps_per_epoch = task.hyperparameters.steps_per_epoch(task.training_examples)
        self._is_printing = coordinates.local_rank == 0  # once for each pod
        self._progress = progress
        self._results = (
            Results(task.run.layout.results, storage, _columns(task, has_validation))
            if coordinates.rank == 0
            else None
        )
        self._recent: deque[tuple[float, int]] = deque(maxlen=THROUGHPUT_STEPS + 1)
        self._printed_at = 0.0

    def start(self, state: TrainingState) -> None:
        """Record that training starts from `state`."""
        if self._results:
            self._results.start(state.step)
        self._recent.append((time.monotonic(), state.trained_tokens))
        if state.step:
            self._print(f"resumed from the checkpoint of step {state.step}")
            self._progress.update(resumed_from_step=state.step, checkpoint_step=state.step)
        elif state.before is not None:
            self._print(
                f"before the first step: validation loss {_number(state.before.validation_loss)}"
            )
        self._show(state)
        self._progress.start_training()

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
        """Record a finished step.

        wait: seconds that the step waited for its batch. classes: classification metrics by column,
        at the end of an epoch.
        """
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
        speed, seconds_left = self._throughput(state.step)
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
            stage=Stage.TRAINING,
            detail="",
            training_loss=totals.loss,
            learning_rate=rate,
            tokens_per_second=speed,
            seconds_left=seconds_left,
        )
        is_epoch_end = state.step % self._steps_per_epoch == 0
        if now - self._printed_at >= LINE_SECONDS or is_epoch_end:
            self._printed_at = now
            self._print(self._line(state, totals, validation, rate))
        if classes:
            shown = [f"{name.rpartition('/')[2]} {_number(classes[name])}" for name in classes]
            self._print(f"classification: {', '.join(shown)}")

    def _show(self, state: TrainingState) -> None:
        self._progress.update(
            step=state.step,
            epoch=round(state.step / self._steps_per_epoch, 3),
            trained_tokens=state.trained_tokens,
            before=state.before,
            completed_epochs=state.completed_epochs,
        )

    def _device(self, speed: float | None) -> dict[str, float]:
        """Gauges of this rank's GPU: peak memory and model FLOPs utilization."""
        found: dict[str, float] = {}
        if self._gpu is not None:
            found["gpu_memory_peak_bytes"] = self._gpu.peak_bytes()
            if speed is not None and (share := self._gpu.utilization(speed)) is not None:
                found["model_flops_utilisation"] = share
        return found

    def _throughput(self, step: int) -> tuple[float | None, float | None]:
        """Tokens per second and estimated seconds left, from the last steps."""
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
        speed, seconds_left = self._throughput(state.step)
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
        """Record that the evaluation at the end of an epoch starts."""
        self._progress.update(stage=Stage.EVALUATING, detail="the whole validation file")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._print(f"warning: {text}")

    def heartbeat(self) -> None:
        """Show progress between steps, so that the attempt does not count as stalled."""
        self._progress.update(stepped=True)

    def upload(self) -> None:
        """Upload the rows of results.csv so far; returns when they are in S3."""
        if self._results:
            self._results.upload()

    def record_checkpoint_copy(self, seconds: float) -> None:
        """Record the seconds that training waited for the copy of a checkpoint."""
        self._progress.gauge(checkpoint_copy_seconds=seconds)
        self._progress.update(stepped=True)

    def record_checkpoint(self, state: TrainingState, seconds: float) -> None:
        """Record a complete checkpoint; seconds: since its copy."""
        self._progress.gauge(checkpoint_seconds=seconds)
        self._progress.update(stepped=True, checkpoint_step=state.step)
        self._print(f"checkpoint saved at step {state.step}")

    def begin_publishing(self, detail: str) -> None:
        """Record and print a step of the publication."""
        self._progress.update(stepped=True, stage=Stage.PUBLISHING, detail=detail)
        self._print(detail)

    @property
    def results(self) -> str:
        """The text of results.csv; empty on all ranks but 0."""
        return self._results.text if self._results else ""

    def close(self) -> None:
        """Upload the last rows, also after a failure."""
        if self._results:
            self._results.close()

    def _print(self, text: str) -> None:
        if self._is_printing:
            print(text, flush=True)


def _columns(task: TrainTask, has_validation: bool) -> list[str]:
    requested = task.classification
    return columns(has_validation, class_metrics.columns(requested) if requested else ())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
