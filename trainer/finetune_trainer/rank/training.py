"""The training: the same steps whatever the number of ranks, and after any number of restarts."""

import contextlib
import gc
import math
from dataclasses import dataclass
from pathlib import Path

from finetune_storage.errors import StorageError

from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_data.tokenize.dataset import Dataset
from finetune_storage.connect import open_storage
from finetune_trainer import run_manifest
from finetune_trainer.batching.order import Costs
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.checkpoint.store import Checkpoints
from finetune_trainer.engine.compute_path import choose_compute_path
from finetune_trainer.engine.deepspeed import Engine, Precision, RankCoordinates, connect
from finetune_trainer.engine.loading import load_model
from finetune_trainer.engine.lora import add_adapter
from finetune_trainer.engine.lr_schedule import learning_rate
from finetune_trainer.engine.memory_budget import micro_batch_costs
from finetune_trainer.engine.mfu import Gpu
from finetune_trainer.errors import nan_loss
from finetune_trainer.evaluation.class_scorer import ClassScorer, find_positive
from finetune_trainer.outputs.run_log import RunLog
from finetune_trainer.progress import ProgressTracker
from finetune_trainer.publishing.publish import publish
from finetune_trainer.rank import loading
from finetune_trainer.rank.checkpoint_policy import CheckpointPolicy
from finetune_trainer.rank.sigterm import SigtermFlag
from finetune_trainer.reporting.writer import ReportWriter
from finetune_trainer.step.stepper import Evaluation, Stepper
from finetune_trainer.workdir import WorkDir


@dataclass(frozen=True)
class Run:
    """Everything that stays the same while a run goes on."""

    task: TrainTask
    engine: Engine
    stepper: Stepper
    evaluation: Evaluation | None
    classifier: ClassScorer | None
    saving: CheckpointPolicy
    run_log: RunLog
    stop: SigtermFlag
    report_writer: ReportWriter | None = None

    def rate(self, step: int) -> float:
        parameters = self.task.hyperparameters
        return learning_rate(
            step,
            steps=parameters.steps(self.task.training_examples),
            peak=parameters.learning_rate,
            warmup_ratio=parameters.warmup_ratio,
            schedule=parameters.lr_schedule,
        )


def train(run: Run, state: TrainingState) -> TrainingState:
    """All steps after `state`: rows, evaluations and checkpoints."""
    steps_per_epoch = run.task.hyperparameters.steps_per_epoch(run.task.training_examples)
    steps = steps_per_epoch * run.task.hyperparameters.n_epochs
    while state.step < steps:
        step, rate = state.step + 1, run.rate(state.step + 1)
        flags = run.saving.flags(is_asked_to_stop=run.stop.is_asked)
        totals, batch, flags = run.stepper.accumulate(step, flags)
        norm = run.engine.step(rate)
        if not math.isfinite(totals.objective):
            raise nan_loss(step, "loss", rate)
        if not math.isfinite(norm):
            raise nan_loss(step, "gradient", rate)
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
        run.saving.after_step(state, flags, is_epoch_end=is_epoch_end, is_last=step == steps)
    run.saving.finish()
    return state


def make_classifier(
    task: TrainTask, dataset: Dataset, costs: Costs, base: Path, run_log: RunLog
) -> ClassScorer | None:
    """Where the task asks for classification metrics; `base` has the tokenizer."""
    asked = task.classification
    if asked is None or dataset.validation is None:
        return None
    classifier = ClassScorer(
        asked,
        dataset.train,
        dataset.validation,
        positive=find_positive(base, asked),
        costs=costs,
        heartbeat=run_log.heartbeat,
    )
    if classifier.has_one_class:
        run_log.warn("the validation file has one class only: AUROC can't be measured")
    return classifier


def run_rank(
    task: TrainTask, work: WorkDir, progress: ProgressTracker, stop: SigtermFlag
) -> Outcome | None:
    """One rank's life, from the imports to the published model. Rank 0 gets the outcome."""
    place = RankCoordinates.from_environment()
    precision: Precision = "fp32" if task.accelerator == "cpu" else "bf16"
    storage = open_storage()
    progress.update(steps=task.hyperparameters.steps(task.training_examples))
    progress.update(epochs=task.hyperparameters.n_epochs)
    loading.import_libraries()
    base = work.wait_for_base_model()
    dataset = loading.read_dataset(task, work)
    model = load_model(base, precision)
    if task.method.type == "lora":
        model = add_adapter(model, task.method, task.hyperparameters.seed)
    progress.update(detail="waiting for the other ranks")
    connect(task.accelerator)
    engine = Engine(
        model,
        place,
        zero_stage=task.zero_stage,
        precision=precision,
        weight_decay=task.hyperparameters.weight_decay,
        offload=task.offload,
    )
    run_log = RunLog(
        *(task, place, progress, storage),
        has_validation=bool(dataset.validation),
        gpu=Gpu(task, engine, dataset.train) if task.accelerator == "nvidia" else None,
    )
    choose_compute_path(engine, longest=dataset.longest, warn=run_log.warn, packing=task.packing)
    costs = micro_batch_costs(task, engine, dataset.longest)
    checkpoints = Checkpoints(
        *(task.run.layout, storage, engine, work.checkpoint, task.attempt), before=run_log.upload
    )
    progress.update(detail="looking for a checkpoint")
    state = checkpoints.restore()
    evaluation = (
        Evaluation(task, engine, dataset.validation, costs, run_log.heartbeat)
        if dataset.validation
        else None
    )
    if evaluation is not None and state.step == 0 and task.base.is_continued:
        progress.update(detail="measuring the model that it continues from")
        state = state.measured_before(evaluation.whole())
    if place.rank == 0:
        run_manifest.write(task, dataset.manifest, precision, storage)
    progress.update(detail="completing some prompts for the report")
    report_writer = ReportWriter(task, engine, dataset, storage, run_log, base=base)
    report_writer.begin(state)
    run_log.start(state)
    gc.collect()
    gc.freeze()
    run = Run(
        task=task,
        engine=engine,
        stepper=Stepper(task, engine, dataset.train, costs),
        evaluation=evaluation,
        classifier=make_classifier(task, dataset, costs, base, run_log),
        saving=CheckpointPolicy(
            checkpoints,
            run_log,
            ranks=place.ranks,
            is_first=place.rank == 0,
            seconds=task.checkpoint_seconds,
            saved_step=state.step,
        ),
        run_log=run_log,
        stop=stop,
        report_writer=report_writer,
    )
    try:
        state = train(run, state)
    except BaseException as error:
        with contextlib.suppress(StorageError):
            run_log.close()  # the rows so far; what went wrong is said by the exception
        report_writer.fail(error, run.classifier)
        raise
    run_log.close()
    run_log.begin_publishing("completing some prompts for the report")
    describe = report_writer.finish(run.classifier)
    run_log.begin_publishing("gathering the model")
    outcome = publish(
        *(task, state, engine, storage),
        base=base,
        folder=work.model,
        progress=run_log.begin_publishing,
        describe=describe,
    )
    if outcome is not None:
        run_manifest.write(task, dataset.manifest, precision, storage, outcome.trained)
    engine.barrier()  # the others stay until rank 0 has published
    return outcome
