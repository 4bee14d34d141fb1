"""Deletes the files of a model, with the task in FINETUNE_TASK.

It deletes exactly the keys that the model's own manifest lists, below the model's own prefix. The
manifest is deleted last, so that an interrupted deletion can continue. Nothing is deleted unless
the address has our layout for the Model's FineTune, and the manifest has the same id, FineTune, and
digest as the Model: a Model may be written by hand.
"""

import argparse
import hashlib
import os
from typing import Literal

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST, is_model_address, model_address
from finetune_api.names import ENV_TASK, TERMINATION_MESSAGE_PATH, Reason
from finetune_api.outcome import Deleted, Outcome
from finetune_api.tasks import DeletionTask
from finetune_api.uris import S3Uri
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.pod_log import log
from finetune_data.termination import finish
from finetune_storage.connect import open_storage
from finetune_storage.manifests import Manifest
from finetune_storage.s3 import Storage


class ModelFiles(Manifest):
    """The fields of a model's manifest that say which Model the files belong to."""

    kind: Literal["model"]
    id: str
    fine_tune: str  # namespace/name
    fine_tune_uid: str


def main() -> int:
    """Run the task in FINETUNE_TASK; returns the pod's exit code."""
    parser = argparse.ArgumentParser(prog="python -m finetune_data.deletion", description=__doc__)
    parser.add_argument(
        "--termination-log",
        default=os.environ.get("FINETUNE_TERMINATION_LOG", TERMINATION_MESSAGE_PATH),
        help="file for the outcome (default: %(default)s)",
    )
    arguments = parser.parse_args()
    outcome = run(os.environ.get(ENV_TASK, ""))
    if outcome.failure is not None:
        log(f"failed: {outcome.failure.message}")
    elif outcome.deleted is not None:
        log(f"deleted: {outcome.deleted.files} files, {outcome.deleted.size:,} bytes")
    return finish(outcome, arguments.termination_log)


def run(task_json: str) -> Outcome:
    """The outcome of a task. An unexpected exception becomes an outcome, too."""
    try:
        task = DeletionTask.model_validate_json(task_json)
        return Outcome(deleted=delete_model(task, open_storage()))
    except FailureError as error:
        return Outcome(failure=error.failure)
    except ValidationError as error:
        return Outcome(failure=failures.invalid_task("DeletionTask", error))
    except Exception as error:
        return Outcome(failure=failures.crashed("deletion", error))


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
    key = uri.child(path)
    try:
        is_clean = S3Uri.parse(str(key)).key == f"{uri.key}/{path}"
    except ValueError:
        is_clean = False
    if not is_clean:
        raise DataError(failures.invalid_manifest_path(uri, path))
    return key
