"""The manifest of a published model, and the lookup of a model that an attempt has published."""

from hashlib import sha256
from typing import Literal

from pydantic import Field, ValidationError

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics, Outcome, Trained
from finetune_api.tasks import RunRef
from finetune_api.wire import Stored
from finetune_data import failures
from finetune_storage.errors import StorageError
from finetune_storage.manifests import FileEntry
from finetune_storage.s3 import Storage


class ModelManifest(Stored):
    """`model/manifest.json`: the owner of a model, and its training."""

    kind: Literal["model"] = "model"
    id: str
    fine_tune: str  # namespace/name
    fine_tune_uid: str
    attempt: int
    base: str
    base_uri: str
    base_revision: str | None = None  # None: of an earlier version
    method: Literal["full", "lora"] = "full"  # lora: adapter/ holds the trained weights
    published: str  # ISO 8601, UTC
    dtype: str
    steps: int
    trained_tokens: int
    training_loss: float | None = None
    first_loss: float | None = None  # of the first step
    before: EpochMetrics | None = None  # metrics of the model that the training continued from
    epochs: list[EpochMetrics] = Field(default_factory=list)
    separator: str | None = None  # the text that ends every prompt of the training file
    end_tokens: list[int] | None = None  # where the model stops; None: of an earlier version
    files: list[FileEntry]


def find_published(run: RunRef, storage: Storage) -> Outcome | None:
    """The outcome of the attempt that published the model; None if no attempt has.

    Raises FailureError if another FineTune has published its model there, or if the manifest is
    not readable.
    """
    uri = run.layout.model.child(MANIFEST)
    try:
        data = storage.read_bytes(uri)
    except StorageError as error:
        if error.failure.code == Reason.DATA_NOT_FOUND:
            return None
        raise
    try:
        manifest = ModelManifest.model_validate_json(data)
    except ValidationError as error:
        raise FailureError(failures.unreadable_manifest(uri)) from error
    if manifest.fine_tune_uid != run.uid:
        raise FailureError(failures.foreign_model(uri, manifest.fine_tune, manifest.fine_tune_uid))
    return outcome_of(run, manifest, data)


def outcome_of(run: RunRef, manifest: ModelManifest, data: bytes) -> Outcome:
    """The outcome of a run whose model has this manifest. data: its bytes in S3."""
    return Outcome(trained=trained_of(run, manifest, data))


def trained_of(run: RunRef, manifest: ModelManifest, data: bytes) -> Trained:
    """The result of a run whose model has this manifest. data: its bytes in S3."""
    layout = run.layout
    return Trained(
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
