"""The fine-tuned model in S3, Hugging Face layout, its manifest last and never replaced."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from finetune_api.layout import MANIFEST
from finetune_api.model_names import fine_tuned_model_name
from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics, Outcome, Trained
from finetune_api.tasks import TrainTask
from finetune_api.wire import Stored
from finetune_data.base_models import CARD, CONFIG, SMALL_FILES
from finetune_data.failures import AlreadyExists, FailureError
from finetune_data.manifests import FileEntry, file_entry, to_bytes
from finetune_data.storage import Storage, StorageError
from finetune_trainer import adapter
from finetune_trainer.claim import wait_for_twin
from finetune_trainer.engine import Engine
from finetune_trainer.reporting.data import ReportData
from finetune_trainer.reporting.writing import write_card, write_page
from finetune_trainer.startup import load_model
from finetune_trainer.state import TrainingState

# From the base model as they are; the rest is written anew.
TOKENIZER_FILES = tuple(
    name for name in SMALL_FILES if name not in {CONFIG, CARD, "generation_config.json", MANIFEST}
)
SHARD_SIZE = "5GB"


class ModelManifest(Stored):
    """`model/manifest.json`: whose model it is, and how it came about."""

    kind: Literal["model"] = "model"
    id: str
    fine_tune: str  # namespace/name
    fine_tune_uid: str
    attempt: int
    base: str
    base_uri: str
    method: Literal["full", "lora"] = "full"  # lora: adapter/ holds what was trained
    published: str  # ISO 8601, UTC
    dtype: str
    steps: int
    trained_tokens: int
    training_loss: float | None = None
    first_loss: float | None = None  # of the first step
    before: EpochMetrics | None = None  # of the model that it continued from
    epochs: list[EpochMetrics] = Field(default_factory=list)
    separator: str | None = None  # what every prompt of the training file ends with
    files: list[FileEntry]


def find_published(task: TrainTask, storage: Storage) -> Outcome | None:
    """The outcome of an attempt that got as far as publishing; None where none did.

    Raises FailureError where the model of another FineTune is in its place.
    """
    uri = task.run.layout.model.child(MANIFEST)
    try:
        data = storage.read_bytes(uri)
    except StorageError as error:
        if error.failure.code == Reason.DATA_NOT_FOUND:
            return None
        raise
    manifest = ModelManifest.model_validate_json(data)
    if manifest.fine_tune_uid != task.run.uid:
        raise FailureError.of(
            Reason.FOREIGN_OBJECT,
            f"{uri} belongs to {manifest.fine_tune} (uid {manifest.fine_tune_uid}): "
            "choose another spec.output",
        )
    return _outcome(task, manifest, data)


def publish(
    task: TrainTask,
    state: TrainingState,
    engine: Engine,
    storage: Storage,
    *,
    base: Path,
    folder: Path,
    progress: Callable[[str], None],
    describe: Callable[[str, str], ReportData],
) -> Outcome | None:
    """Called by all ranks; rank 0 gets the outcome. `base`: with the tokenizer's files.

    describe: what the card and the report say, by the model's name and when it was published.
    """
    write_model(engine, folder, base)
    if engine.place.rank != 0:
        return None
    published = wait_for_twin(task, storage, find_published, progress)
    if published is not None:
        return published
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    now = datetime.now(UTC)
    name = fine_tuned_model_name(task.base.root, task.organization, task.suffix, now)
    data = describe(name, now.isoformat(timespec="seconds"))
    write_card(data, folder)
    files = (path for path in folder.rglob("*") if path.is_file())
    paths = sorted(str(path.relative_to(folder)) for path in files)
    uri = task.run.layout.model
    for path in paths:
        progress(f"uploading {path}")
        storage.upload_file(folder / path, uri.child(path))
    write_page(data, task.run.layout.root, storage)
    last = state.completed_epochs[-1] if state.completed_epochs else None
    manifest = ModelManifest(
        id=name,
        fine_tune=f"{task.run.namespace}/{task.run.name}",
        fine_tune_uid=task.run.uid,
        attempt=task.attempt,
        base=task.base.name,
        base_uri=task.base.uri,
        method=task.method.type,
        published=now.isoformat(timespec="seconds"),
        dtype={"fp32": "float32", "bf16": "bfloat16"}[engine.precision],
        steps=state.step,
        trained_tokens=state.trained_tokens,
        training_loss=last.training_loss if last else None,
        first_loss=state.first_loss,
        before=state.before,
        epochs=state.completed_epochs,
        separator=data.dataset.separator,
        files=[file_entry(folder, path) for path in paths],
    )
    written = to_bytes(manifest)
    try:
        storage.write_bytes(uri.child(MANIFEST), written, only_if_absent=True)
    except AlreadyExists:
        return find_published(task, storage)
    return _outcome(task, manifest, written)


def write_model(engine: Engine, folder: Path, base: Path) -> None:
    """Whole weights in the training's precision, gathered one by one; rank 0 writes them.

    Of a LoRA run the adapter alone is gathered; the merged model is the base from its files, with
    the adapter added.
    """
    import torch

    dtype = torch.bfloat16 if engine.precision == "bf16" else torch.float32
    is_adapter = adapter.is_adapted(engine.model)
    weights = {}
    for name, parameter in engine.parameters():
        whole = engine.read_weights(parameter)
        if engine.place.rank == 0:
            weights[name] = whole.to(torch.float32 if is_adapter else dtype).cpu().contiguous()
    if engine.place.rank != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if is_adapter:
        adapter.write_adapter(engine.model, weights, folder / adapter.FOLDER)
        model = load_model(base, "fp32")  # the sum is exact in fp32
        merged = adapter.merge(model, folder / adapter.FOLDER).to(dtype)
        merged.save_pretrained(folder, max_shard_size=SHARD_SIZE)
        return
    buffers = dict(engine.model.named_buffers())
    weights |= {name: buffers[name].cpu() for name in engine.model.state_dict() if name in buffers}
    engine.model.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD_SIZE)


def _outcome(task: TrainTask, manifest: ModelManifest, data: bytes) -> Outcome:
    from hashlib import sha256

    layout = task.run.layout
    return Outcome(
        trained=Trained(
            fine_tuned_model=manifest.id,
            model_uri=str(layout.model),
            model_manifest_sha256=sha256(data).hexdigest(),
            result_files=[str(layout.results)],
            trained_tokens=manifest.trained_tokens,
            steps=manifest.steps,
            training_loss=manifest.training_loss,
            first_loss=manifest.first_loss,
            before=manifest.before,
            epochs=manifest.epochs,
        )
    )
