"""The training loop: the same steps for any number of ranks and after any number of restarts."""

import math
from dataclasses import dataclass

from finetune_api.errors import FailureError
from finetune_api.tasks import TrainTask
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.lr_schedule import learning_rate
from finetune_trainer.evaluation.class_scorer import ClassScorer
from finetune_trainer.failures import nan_loss
from finetune_trainer.outputs.run_log import RunLog
from finetune_trainer.rank.checkpoint_policy import CheckpointPolicy
from finetune_trainer.rank.sigterm import SigtermFlag
from finetune_trainer.reporting.writer import ReportWriter
from finetune_trainer.step.stepper import Evaluation, Stepper


@dataclass(frozen=True)
class Run:
    """The parts of a rank that the training loop uses."""

    task: TrainTask
    engine: Engine
    stepper: Stepper
    evaluation: Evaluation | None
    classifier: ClassScorer | None
    checkpoint_policy: CheckpointPolicy
    run_log: RunLog
    sigterm: SigtermFlag
    report_writer: ReportWriter | None = None

    def learning_rate(self, step: int) -> float:
        parameters = self.task.hyperparameters
        return learning_rate(
            step,
            steps=parameters.steps(self.task.training_examples),
            peak=parameters.learning_rate,
            warmup_ratio=parameters.warmup_ratio,
            schedule=parameters.lr_schedule,
        )


def train(run: Run, state: TrainingState) -> TrainingState:
    """Run all steps after `state`, with their rows, evaluations, and checkpoints."""
    steps_per_epoch = run.task.hyperparameters.steps_per_epoch(run.task.training_examples)
    steps = steps_per_epoch * run.task.hyperparameters.n_epochs
    while state.step < steps:
        step, rate = state.step + 1, run.learning_rate(state.step + 1)
        flags = run.checkpoint_policy.flags(is_stop_requested=run.sigterm.is_set)
        totals, batch, flags = run.stepper.accumulate(step, flags)
        norm = run.engine.step(rate)
        if not math.isfinite(totals.objective):
            raise FailureError(nan_loss(step, "loss", rate))
        if not math.isfinite(norm):
            raise FailureError(nan_loss(step, "gradient", rate))
        state = state.after_step(totals, batch.tokens, batch.examples)
        is_epoch_end = step % steps_per_epoch == 0
        validation, classes = None, None
        if run.evaluation is not None:
            if is_epoch_end:
                run.run_log.begin_evaluation()
            validation = run.evaluation.after(step, whole=is_epoch_end)
        if run.classifier is not None and is_epoch_end:
            classes = run.classifier.measure(run.engine)
        if is_epoch_end:
            state = state.after_epoch(step // steps_per_epoch, validation, rate)
        run.run_log.record_step(
            state, totals, validation, rate, norm, wait=batch.wait, classes=classes
        )
        if run.report_writer is not None:
            run.report_writer.record_step(state, is_epoch_end=is_epoch_end)
        run.checkpoint_policy.after_step(
            state, flags, is_epoch_end=is_epoch_end, is_last=step == steps
        )
    run.checkpoint_policy.finish()
    return state
