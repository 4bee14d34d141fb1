"""Builds the parts of a rank, each once, before the first step."""

from dataclasses import dataclass
from pathlib import Path

from finetune_api.tasks import TrainTask
from finetune_data.tokenize.dataset import Dataset
from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from finetune_trainer.attempt_fence import AttemptFence
from finetune_trainer.base_check.check import inspection, read_base
from finetune_trainer.batching.order import Costs
from finetune_trainer.checkpoint.store import Checkpoints
from finetune_trainer.engine.compute_path import choose_compute_path
from finetune_trainer.engine.deepspeed import Engine, Precision, RankCoordinates, connect
from finetune_trainer.engine.loading import import_libraries, load_for_training
from finetune_trainer.engine.lora import add_adapter
from finetune_trainer.engine.memory_budget import micro_batch_costs
from finetune_trainer.engine.mfu import Gpu
from finetune_trainer.evaluation.class_scorer import ClassScorer, find_positive_class
from finetune_trainer.hardware.description import describe_network, node_line
from finetune_trainer.hardware.gpu_access import require_gpu
from finetune_trainer.hardware.links import observe_links
from finetune_trainer.hardware.nccl_log import read_network
from finetune_trainer.outputs.run_log import RunLog
from finetune_trainer.progress import ProgressTracker
from finetune_trainer.rank.dataset import read_dataset
from finetune_trainer.reporting.samples.allowance import RunSize
from finetune_trainer.reporting.writer import ReportWriter
from finetune_trainer.step.stepper import Evaluation, Stepper
from finetune_trainer.workdir import WorkDir


@dataclass(frozen=True)
class Parts:
    """Everything that a rank uses from the restored checkpoint to the published model."""

    task: TrainTask
    progress: ProgressTracker
    storage: Storage
    base_model: Path  # the folder with the base model and its tokenizer
    dataset: Dataset
    engine: Engine
    run_log: RunLog
    checkpoints: Checkpoints
    stepper: Stepper
    evaluation: Evaluation | None  # None: there is no validation file
    classifier: ClassScorer | None  # None: no classification metrics were requested
    report_writer: ReportWriter


def build_parts(task: TrainTask, workdir: WorkDir, progress: ProgressTracker) -> Parts:
    """Wait for the downloads, join the other ranks, and load the model. All ranks together."""
    coordinates = RankCoordinates.from_environment()
    precision: Precision = "fp32" if task.accelerator == "cpu" else "bf16"
    if task.accelerator == "nvidia":
        require_gpu(coordinates.local_rank)
        if coordinates.local_rank == 0:
            print(node_line(), flush=True)
    storage = open_storage()
    if coordinates.rank == 0:
        fence = AttemptFence(task.run.layout, storage, task.attempt)
        fence.begin()
        storage.before_write = fence.check
    import_libraries()
    base_model = workdir.wait_for_base_model()
    dataset = read_dataset(task, workdir)
    progress.update(detail="waiting for the other ranks")
    # again, because the base model may have changed since the prepare Job
    inspect = inspection(read_base(base_model), _print, tests_causality=coordinates.local_rank == 0)
    connect(task.accelerator)
    model = load_for_training(
        *(base_model, precision),
        zero_stage=task.zero_stage,
        offload=task.offload,
        ranks=coordinates.ranks,
        is_frozen=task.method.type == "lora",
        progress=lambda percent: progress.update(detail=f"loading the base model: {percent} %"),
        inspect=inspect,
    )
    progress.update(detail="starting the engine")
    if task.method.type == "lora":
        model = add_adapter(model, task.method, task.hyperparameters.seed)
    engine = Engine(
        model,
        coordinates,
        zero_stage=task.zero_stage,
        precision=precision,
        weight_decay=task.hyperparameters.weight_decay,
        offload=task.offload,
        overlaps=bool(task.overlap_communication),
        buffer_share=task.micro_batch_share,
    )
    run_log = RunLog(
        *(task, coordinates, progress, storage),
        has_validation=bool(dataset.validation),
        gpu=Gpu(task, engine, dataset.train) if task.accelerator == "nvidia" else None,
    )
    pass_seconds: list[float] = []
    choose_compute_path(
        engine,
        longest=dataset.longest,
        warn=run_log.warn,
        packing=task.packing,
        timed=pass_seconds.append,
    )
    if task.accelerator == "nvidia" and task.nodes > 1 and coordinates.local_rank == 0:
        network = read_network(workdir.nccl_log(0))  # NCCL has connected all ranks by now
        print(describe_network(network, observe_links()), flush=True)
    costs = micro_batch_costs(task, engine, dataset.longest)
    return Parts(
        task=task,
        progress=progress,
        storage=storage,
        base_model=base_model,
        dataset=dataset,
        engine=engine,
        run_log=run_log,
        checkpoints=Checkpoints(
            *(task.run.layout, storage, engine, workdir.checkpoint, task.attempt),
            base_revision=task.base.revision,
            before_manifest=run_log.upload,
            progress=lambda detail: progress.update(detail=detail),
        ),
        stepper=Stepper(task, engine, dataset.train, costs),
        evaluation=(
            Evaluation(task, engine, dataset.validation, costs, run_log.heartbeat)
            if dataset.validation
            else None
        ),
        classifier=_build_classifier(task, dataset, costs, base_model, run_log),
        report_writer=ReportWriter(
            *(task, engine, dataset, storage, run_log),
            base=base_model,
            run=RunSize.of(
                steps=task.hyperparameters.steps(task.training_examples),
                tokens=task.hyperparameters.n_epochs * len(dataset.train.tokens),
                slots=costs.slots,
                ranks=coordinates.ranks,
            ),
            pass_seconds=min(pass_seconds),
        ),
    )


def _print(text: str) -> None:
    print(text, flush=True)


def _build_classifier(
    task: TrainTask, dataset: Dataset, costs: Costs, base_model: Path, run_log: RunLog
) -> ClassScorer | None:
    requested = task.classification
    if requested is None or dataset.validation is None:
        return None
    classifier = ClassScorer(
        requested,
        dataset.train,
        dataset.validation,
        positive=find_positive_class(base_model, requested),
        costs=costs,
        heartbeat=run_log.heartbeat,
    )
    if classifier.has_one_class:
        run_log.warn("the validation file has only one class, so AUROC is undefined")
    return classifier
