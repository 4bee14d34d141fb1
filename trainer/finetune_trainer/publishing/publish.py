"""Publishes the model in the Hugging Face layout; the manifest is last and never replaced."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
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
from finetune_trainer.publishing.lock import ClaimLostError, PublishClaim, claim_publishing
from finetune_trainer.publishing.percent import Percent
from finetune_trainer.publishing.tokenizer_files import write_tokenizer
from finetune_trainer.publishing.weights import write_model
from finetune_trainer.reporting.card import CARD
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
    files: _Files | None = None
    while True:
        claim = claim_publishing(task, storage, find_published, progress)
        if isinstance(claim, Outcome):
            return claim
        with claim, contextlib.suppress(ClaimLostError):
            if files is None:
                write_end_tokens(base, folder, end_tokens)
                write_tokenizer(base, folder, end_tokens[0])
                if reference is not None:
                    compare(reference, engine, folder, base, progress)
                files = _complete(task, folder, describe, progress)
            manifest = _manifest(task, state, engine, files, end_tokens)
            return _publish_files(
                *(task, files, manifest, storage),
                claim=claim,
                progress=progress,
                before_manifest=before_manifest,
            )


@dataclass(frozen=True)
class _Files:
    """The files of the model on this machine, and what the report says about it."""

    folder: Path
    name: str  # of the model
    published: str  # ISO 8601, UTC
    data: ReportData
    entries: list[FileEntry]  # the card last: of two pods, only the cards differ


def _complete(
    task: TrainTask,
    folder: Path,
    describe: Callable[[str, str], ReportData],
    progress: Callable[[str], None],
) -> _Files:
    """Name the model, and write its card."""
    now = datetime.now(UTC)
    name = fine_tuned_model_name(task.base.root, task.organization, task.suffix, now)
    published = now.isoformat(timespec="seconds")
    data = describe(name, published)
    write_card(data, folder)
    found = (path for path in folder.rglob("*") if path.is_file())
    paths = sorted(str(path.relative_to(folder)) for path in found)
    paths.sort(key=lambda path: path == CARD)
    progress("computing the digests of the model")
    return _Files(folder, name, published, data, file_entries(folder, paths))


def _manifest(
    task: TrainTask,
    state: TrainingState,
    engine: Engine,
    files: _Files,
    end_tokens: Sequence[int],
) -> ModelManifest:
    last = state.completed_epochs[-1] if state.completed_epochs else None
    return ModelManifest(
        id=files.name,
        fine_tune=f"{task.run.namespace}/{task.run.name}",
        fine_tune_uid=task.run.uid,
        attempt=task.attempt,
        base=task.base.name,
        base_uri=task.base.uri,
        base_revision=task.base.revision,
        method=task.method.type,
        published=files.published,
        dtype={"fp32": "float32", "bf16": "bfloat16"}[engine.precision],
        steps=state.step,
        trained_tokens=state.trained_tokens,
        training_loss=last.training_loss if last else None,
        first_loss=state.first_loss,
        before=state.before,
        epochs=state.completed_epochs,
        separator=files.data.dataset.separator,
        end_tokens=list(end_tokens),
        files=files.entries,
    )


def _publish_files(
    task: TrainTask,
    files: _Files,
    manifest: ModelManifest,
    storage: Storage,
    *,
    claim: PublishClaim,
    progress: Callable[[str], None],
    before_manifest: Callable[[Trained | None], None],
) -> Outcome | None:
    """Upload the files, the report, and the manifest. Raises ClaimLostError."""
    uri = task.run.layout.model
    # only the holder of the claim uploads, so that these are of a dead one
    storage.abort_uploads(uri, lambda _: True)
    _upload(files, uri, storage, claim, progress)
    write_page(files.data, task.run.layout.root, storage)
    claim.require()
    if _has_foreign_file(files, uri, storage):
        raise ClaimLostError
    written = to_bytes(manifest)
    outcome = outcome_of(task.run, manifest, written)
    before_manifest(outcome.trained)
    try:
        storage.write_bytes(uri.child(MANIFEST), written, only_if_absent=True)
    except AlreadyExists:
        return find_published(task.run, storage)
    return outcome


def _has_foreign_file(files: _Files, uri: S3Uri, storage: Storage) -> bool:
    """Whether a pod that has lost its claim has replaced a file after the upload of this pod."""
    start = len(uri.key) + 1
    sizes = {entry.key[start:]: entry.size for entry in storage.list(uri)}
    if any(sizes.get(entry.path) != entry.size for entry in files.entries):
        return True
    cards = [entry for entry in files.entries if entry.path == CARD]
    return any(
        sha256(storage.read_bytes(uri.child(card.path))).hexdigest() != card.sha256
        for card in cards
    )


def _upload(
    files: _Files,
    uri: S3Uri,
    storage: Storage,
    claim: PublishClaim,
    progress: Callable[[str], None],
) -> None:
    """Upload the files, one after the other. Each is uploaded in parallel parts."""
    total = sum(entry.size for entry in files.entries)
    percent = Percent("uploading the model", progress).of(total)
    before = 0

    def show(done: int, _: int) -> None:
        percent.at(before + done)

    for entry in files.entries:
        claim.require()
        storage.upload_file(files.folder / entry.path, uri.child(entry.path), show)
        before += entry.size
