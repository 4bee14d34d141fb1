"""The life cycle of a rank: restore the newest checkpoint, train, and publish the model."""

import contextlib
import gc

from finetune_api.errors import FailureError
from finetune_api.outcome import Outcome, Trained
from finetune_api.tasks import TrainTask
from finetune_trainer import run_manifest
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.progress import ProgressTracker
from finetune_trainer.publishing.publish import publish
from finetune_trainer.rank.checkpoint_policy import CheckpointPolicy
from finetune_trainer.rank.composition import Parts, build_parts
from finetune_trainer.rank.sigterm import SigtermFlag
from finetune_trainer.rank.training import Run, train
from finetune_trainer.workdir import WorkDir


def run_rank(
    task: TrainTask, workdir: WorkDir, progress: ProgressTracker, sigterm: SigtermFlag
) -> Outcome | None:
    """Run one rank from its imports to the published model. Rank 0 gets the outcome."""
    progress.update(steps=task.hyperparameters.steps(task.training_examples))
    progress.update(epochs=task.hyperparameters.n_epochs)
    parts = build_parts(task, workdir, progress)
    state = _restore(parts)
    state = _train(parts, state, sigterm)
    return _publish(parts, state, workdir)


def _restore(parts: Parts) -> TrainingState:
    """The state of the newest checkpoint, or of a new run."""
    task, progress = parts.task, parts.progress
    progress.update(detail="looking for a checkpoint")
    state = parts.checkpoints.restore()
    if parts.evaluation is not None and state.step == 0 and task.base.is_continued:
        progress.update(detail="evaluating the model before the first step")
        state = state.measured_before(parts.evaluation.whole())
    if parts.engine.coordinates.rank == 0:
        run_manifest.write(task, parts.dataset.manifest, parts.engine.precision, parts.storage)
    return state


def _train(parts: Parts, state: TrainingState, sigterm: SigtermFlag) -> TrainingState:
    parts.progress.update(detail="completing the sample prompts for the report")
    parts.report_writer.begin(state)
    parts.run_log.start(state)
    gc.collect()
    gc.freeze()
    coordinates = parts.engine.coordinates
    run = Run(
        task=parts.task,
        engine=parts.engine,
        stepper=parts.stepper,
        evaluation=parts.evaluation,
        classifier=parts.classifier,
        checkpoint_policy=CheckpointPolicy(
            parts.checkpoints,
            parts.run_log,
            ranks=coordinates.ranks,
            is_first=coordinates.rank == 0,
            seconds=parts.task.checkpoint_seconds,
            saved_step=state.step,
        ),
        run_log=parts.run_log,
        sigterm=sigterm,
        report_writer=parts.report_writer,
    )
    try:
        state = train(run, state)
    except BaseException as error:
        with contextlib.suppress(FailureError):
            parts.run_log.close()  # uploads the rows so far; the raised error stays the cause
        parts.report_writer.fail(error, parts.classifier)
        raise
    parts.run_log.close()
    return state


def _publish(parts: Parts, state: TrainingState, workdir: WorkDir) -> Outcome | None:
    task, engine, run_log = parts.task, parts.engine, parts.run_log
    recorded: list[Trained | None] = []

    def record(trained: Trained | None) -> None:
        run_manifest.write(task, parts.dataset.manifest, engine.precision, parts.storage, trained)
        recorded.append(trained)

    run_log.begin_publishing("completing the sample prompts for the report")
    describe = parts.report_writer.finish(parts.classifier)
    run_log.begin_publishing("gathering the model weights")
    outcome = publish(
        *(task, state, engine, parts.storage),
        base=parts.base_model,
        folder=workdir.model,
        dataset=parts.dataset,
        end_tokens=parts.report_writer.end_tokens,
        progress=run_log.begin_publishing,
        describe=describe,
        before_manifest=record,
    )
    if outcome is not None and outcome.trained not in recorded:  # another pod has published
        record(outcome.trained)
    engine.barrier()  # the other ranks stay until rank 0 has published
    return outcome
