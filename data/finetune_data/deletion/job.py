"""Deletes the files of a model.

It deletes exactly the keys that the model's own manifest lists, below the model's own prefix. The
manifest is deleted last, so that an interrupted deletion can continue. Nothing is deleted unless
the address has our layout for the Model's FineTune, and the manifest has the same id, FineTune, and
digest as the Model: a Model may be written by hand.
"""

import hashlib
from typing import Literal

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST, is_model_address, model_address
from finetune_api.names import Reason
from finetune_api.outcome import Deleted, Outcome
from finetune_api.tasks import DeletionTask
from finetune_api.uris import S3Uri
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.pod_task import PodTask
from finetune_storage.connect import open_storage
from finetune_storage.manifests import Manifest, file_uri
from finetune_storage.s3 import Storage


class ModelFiles(Manifest):
    """The fields of a model's manifest that say which Model the files belong to."""

    kind: Literal["model"]
    id: str
    fine_tune: str  # namespace/name
    fine_tune_uid: str


def delete_model(task: DeletionTask, storage: Storage) -> Deleted:
    """Delete the files. Raises FailureError, with nothing deleted, if it is in doubt."""
    uri = _prefix(task)
    try:
        data = storage.read_bytes(uri.child(MANIFEST))
    except FailureError as error:
        if error.failure.code == Reason.DATA_NOT_FOUND:
            return Deleted(files=0)  # a prefix without a manifest does not exist
        raise
    manifest = _own_manifest(task, uri, data)
    keys = [_key(uri, entry.path) for entry in manifest.files if entry.path != MANIFEST]
    for key in keys:
        storage.delete(key)
    storage.delete(uri.child(MANIFEST))
    return Deleted(files=len(keys) + 1, size=sum(entry.size for entry in manifest.files))


def _prefix(task: DeletionTask) -> S3Uri:
    """The model's address. It must be where the trainer publishes the model of this FineTune."""
    try:
        uri = S3Uri.parse(task.uri)
    except ValueError as error:
        raise DataError(failures.invalid_address(error, "uri")) from error
    owner = (task.namespace, task.fine_tune or "", task.fine_tune_uid or "")
    if not all(owner):
        raise DataError(failures.no_model_owner(uri))
    if not is_model_address(uri, *owner):
        raise DataError(failures.foreign_address(uri, model_address(*owner)))
    return uri


def _own_manifest(task: DeletionTask, uri: S3Uri, data: bytes) -> ModelFiles:
    try:
        manifest = ModelFiles.model_validate_json(data)
    except ValidationError as error:
        raise DataError(failures.no_model_manifest(uri.child(MANIFEST))) from error
    digest = hashlib.sha256(data).hexdigest()
    for what, found, wanted in (
        ("the id", manifest.id, task.model),
        ("the FineTune", manifest.fine_tune, f"{task.namespace}/{task.fine_tune}"),
        ("the UID", manifest.fine_tune_uid, task.fine_tune_uid),
        ("the digest", digest, task.manifest_sha256 or digest),
    ):
        if found != wanted:
            difference = f"{what} {found}, and the Model has {wanted}"
            raise DataError(failures.other_model(uri, task.model, difference))
    return manifest


def _key(uri: S3Uri, path: str) -> S3Uri:
    """An address below the prefix. A hostile manifest cannot point elsewhere."""
    key = file_uri(uri, path)
    if key is None:
        raise DataError(failures.invalid_manifest_path(uri, path))
    return key


def _describe(outcome: Outcome) -> str:
    assert outcome.deleted is not None
    return f"deleted: {outcome.deleted.files} files, {outcome.deleted.size:,} bytes"


POD = PodTask(
    "python -m finetune_data.deletion",
    "Delete the files of the DeletionTask in FINETUNE_TASK.",
    DeletionTask,
    lambda task: Outcome(deleted=delete_model(task, open_storage())),
    lambda error, lines: failures.crashed("deletion", error, lines),
    _describe,
)
