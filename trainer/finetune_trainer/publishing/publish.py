"""Publishes the model in the Hugging Face layout; the manifest is last and never replaced."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.layout import MANIFEST
from finetune_api.model_names import fine_tuned_model_name
from finetune_api.outcome import Outcome, Trained
from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_data.lookup.published import ModelManifest, find_published, outcome_of
from finetune_data.tokenize.dataset import Dataset
from finetune_storage.errors import AlreadyExists
from finetune_storage.manifests import FileEntry, file_entries, to_bytes
from finetune_storage.s3 import Storage
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine import lora
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.publishing.comparison import choose_rows, compare, compute_reference
from finetune_trainer.publishing.generation import write_end_tokens
from finetune_trainer.publishing.lock import wait_for_duplicate_pod
from finetune_trainer.publishing.percent import Percent
from finetune_trainer.publishing.tokenizer_files import write_tokenizer
from finetune_trainer.publishing.weights import write_model
from finetune_trainer.reporting.report_data import ReportData
from finetune_trainer.reporting.report_files import write_card, write_page


def publish(
    task: TrainTask,
    state: TrainingState,
    engine: Engine,
    storage: Storage,
    *,
    base: Path,
    folder: Path,
    dataset: Dataset,
    end_tokens: Sequence[int],
    progress: Callable[[str], None],
    describe: Callable[[str, str], ReportData],
    before_manifest: Callable[[Trained | None], None],
) -> Outcome | None:
    """Publish the model. All ranks call it together; rank 0 gets the outcome.

    base: the folder with the tokenizer's files. end_tokens: where the model stops. describe:
    returns the contents of the card and the report, given the model's name and the time of
    publishing. before_manifest: gets the result before the model is complete, so that a run with a
    published model also has its result. Raises FailureError if a merged adapter differs from the
    trained model, or if a newer attempt has started.
    """
    is_adapted = lora.is_adapted(engine.model)
    reference = compute_reference(engine, choose_rows(dataset.train)) if is_adapted else None
    write_model(engine, folder, base, progress)
    if engine.coordinates.rank != 0:
        return None
    published = wait_for_duplicate_pod(task, storage, find_published, progress)
    if published is not None:
        return published
    write_end_tokens(base, folder, end_tokens)
    write_tokenizer(base, folder, end_tokens[0])
    if reference is not None:
        compare(reference, engine, folder, base, progress)
    now = datetime.now(UTC)
    name = fine_tuned_model_name(task.base.root, task.organization, task.suffix, now)
    data = describe(name, now.isoformat(timespec="seconds"))
    write_card(data, folder)
    files = (path for path in folder.rglob("*") if path.is_file())
    paths = sorted(str(path.relative_to(folder)) for path in files)
    uri = task.run.layout.model
    progress("computing the digests of the model")
    entries = file_entries(folder, paths)
    _upload(entries, folder, uri, storage, progress)
    write_page(data, task.run.layout.root, storage)
    last = state.completed_epochs[-1] if state.completed_epochs else None
    manifest = ModelManifest(
        id=name,
        fine_tune=f"{task.run.namespace}/{task.run.name}",
        fine_tune_uid=task.run.uid,
        attempt=task.attempt,
        base=task.base.name,
        base_uri=task.base.uri,
        base_revision=task.base.revision,
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
        end_tokens=list(end_tokens),
        files=entries,
    )
    written = to_bytes(manifest)
    outcome = outcome_of(task.run, manifest, written)
    before_manifest(outcome.trained)
    try:
        storage.write_bytes(uri.child(MANIFEST), written, only_if_absent=True)
    except AlreadyExists:
        return find_published(task.run, storage)
    return outcome


def _upload(
    entries: list[FileEntry],
    folder: Path,
    uri: S3Uri,
    storage: Storage,
    progress: Callable[[str], None],
) -> None:
    """Upload the files, one after the other. Each is uploaded in parallel parts."""
    percent = Percent("uploading the model", progress).of(sum(entry.size for entry in entries))
    before = 0

    def show(done: int, _: int) -> None:
        percent.at(before + done)

    for entry in entries:
        storage.upload_file(folder / entry.path, uri.child(entry.path), show)
        before += entry.size
