"""Deletion of a model's files: exactly those that its manifest lists, or none."""

import hashlib
import json
from typing import Any

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import EXIT_USER, Reason
from finetune_api.tasks import DeletionTask
from finetune_api.uris import S3Uri
from finetune_data.deletion.job import POD, delete_model
from finetune_data.termination import exit_code
from finetune_storage.s3 import Storage

UID = "11111111-2222-3333-4444-555555555555"
FILES = ["config.json", "model.safetensors", "adapter/adapter_model.safetensors"]


def published(
    storage: Storage, bucket: str, files: list[str], run: str = "tone-11111111", **changes: Any
) -> tuple[S3Uri, DeletionTask]:
    """A model as the trainer writes it, and the task that deletes it."""
    uri = S3Uri(bucket, f"out/team/{run}/model")
    for path in FILES:
        storage.write_bytes(uri.child(path), b"12345")
    manifest = {
        "kind": "model",
        "id": "ada:ft-team-2026",
        "fineTune": "team/tone",
        "fineTuneUid": UID,
        "files": [{"path": path, "size": 5, "sha256": "0" * 64} for path in files],
    }
    data = json.dumps(manifest).encode()
    storage.write_bytes(uri.child("manifest.json"), data)
    task = {
        "namespace": "team",
        "model": "ada:ft-team-2026",
        "uri": str(uri),
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
        "fine_tune": "tone",
        "fine_tune_uid": UID,
    }
    return uri, DeletionTask(**{**task, **changes})


def keys(storage: Storage, bucket: str) -> list[str]:
    return [entry.key for entry in storage.list(S3Uri(bucket, ""))]


def test_the_files_of_the_manifest_are_deleted_and_no_others(storage: Storage, bucket: str) -> None:
    uri, task = published(storage, bucket, FILES)
    kept = [uri.child("by-hand.txt"), S3Uri(bucket, "out/team/tone-11111111/results.csv")]
    for other in kept:
        storage.write_bytes(other, b"x")
    deleted = delete_model(task, storage)
    assert (deleted.files, deleted.size) == (4, 15)
    assert keys(storage, bucket) == [other.key for other in kept]


def test_an_interrupted_deletion_continues_and_a_second_one_is_harmless(
    storage: Storage, bucket: str
) -> None:
    uri, task = published(storage, bucket, FILES)
    storage.delete(uri.child(FILES[0]))
    assert delete_model(task, storage).files == 4
    assert keys(storage, bucket) == []
    assert delete_model(task, storage).files == 0


@pytest.mark.parametrize(
    "path",
    ["../x", "/x", "a/../../x", "a//b", "", ".", "config.json/", "a\\b", "a\x00b"],
)
def test_a_manifest_that_points_elsewhere_deletes_nothing(
    storage: Storage, bucket: str, path: str
) -> None:
    _, task = published(storage, bucket, [*FILES, path])
    with pytest.raises(FailureError, match="lists an invalid path"):
        delete_model(task, storage)
    assert len(keys(storage, bucket)) == 4


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"namespace": "other"}, Reason.FOREIGN_FILES),
        ({"fine_tune": "other"}, Reason.FOREIGN_FILES),
        ({"fine_tune": None}, Reason.FOREIGN_FILES),
        ({"fine_tune_uid": None}, Reason.FOREIGN_FILES),
        ({"fine_tune": None, "fine_tune_uid": None}, Reason.FOREIGN_FILES),
        ({"fine_tune_uid": "22222222-0"}, Reason.FOREIGN_FILES),
        ({"fine_tune_uid": "11111111-0"}, Reason.FOREIGN_FILES),
        ({"model": "ada:ft-team-2027"}, Reason.FOREIGN_FILES),
        ({"manifest_sha256": "f" * 64}, Reason.FOREIGN_FILES),
        ({"uri": "s3://bkt/../x"}, Reason.INVALID_SPEC),
    ],
)
def test_files_of_another_model_are_not_deleted(
    storage: Storage, bucket: str, changes: dict[str, Any], code: str
) -> None:
    _, task = published(storage, bucket, FILES, **changes)
    with pytest.raises(FailureError) as caught:
        delete_model(task, storage)
    assert caught.value.failure.code == code
    assert exit_code(caught.value.failure) == EXIT_USER
    assert len(keys(storage, bucket)) == 4


@pytest.mark.parametrize("changes", [{"id": "ada:ft-x"}, {"fineTune": "other/tone"}])
def test_a_manifest_of_another_owner_deletes_nothing(
    storage: Storage, bucket: str, changes: dict[str, str]
) -> None:
    """A model of another namespace, copied with its manifest to this address, is not deleted."""
    uri, task = published(storage, bucket, FILES)
    manifest = json.loads(storage.read_bytes(uri.child("manifest.json"))) | changes
    storage.write_bytes(uri.child("manifest.json"), json.dumps(manifest).encode())
    with pytest.raises(FailureError, match=r"does not hold .*: its manifest has") as caught:
        delete_model(task.replace(manifest_sha256=None), storage)
    assert caught.value.failure.code == Reason.FOREIGN_FILES
    assert len(keys(storage, bucket)) == 4


def test_the_root_of_a_run_is_not_a_model(storage: Storage, bucket: str) -> None:
    _, task = published(storage, bucket, FILES)
    for uri in (f"s3://{bucket}", f"s3://{bucket}/out/team/tone-11111111"):
        with pytest.raises(FailureError, match="is not the address of the files"):
            delete_model(task.replace(uri=uri), storage)


def test_a_manifest_of_another_tool_deletes_nothing(storage: Storage, bucket: str) -> None:
    uri, task = published(storage, bucket, FILES)
    storage.write_bytes(uri.child("manifest.json"), b'{"files": []}')
    with pytest.raises(FailureError, match="is not the manifest of a model"):
        delete_model(task, storage)
    assert len(keys(storage, bucket)) == 4


def test_the_outcome_of_the_pod_has_the_counts_or_the_failure(
    aws: pytest.MonkeyPatch, storage: Storage, bucket: str
) -> None:
    _, task = published(storage, bucket, FILES)
    done = POD.run(task.to_json()).deleted
    assert done is not None and done.files == 4
    wrong = POD.run(task.replace(namespace="other").to_json()).failure
    assert wrong is not None and wrong.code == Reason.FOREIGN_FILES
    unknown = POD.run("{}").failure
    assert unknown is not None and unknown.code == Reason.INTERNAL
