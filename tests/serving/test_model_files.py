"""The files of a model from a real S3 server: verified, kept, and bounded on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.errors import FailureError
from finetune_api.uris import S3Uri
from finetune_serving.models.addresses import ModelAddress
from finetune_serving.models.files import ModelFiles
from finetune_serving.models.loaded import load
from finetune_storage.s3 import Storage
from finetune_web.problems import Problem

Publish = Callable[..., ModelAddress]


@pytest.fixture
def publish(storage: Storage, bucket: str) -> Publish:
    """Publish files with a manifest; returns their address."""

    def call(name: str, size: int = 1000) -> ModelAddress:
        uri = S3Uri.parse(f"s3://{bucket}/models/{name}/model")
        files = {
            "config.json": b"{}",
            "model.safetensors": name.encode() * (size // len(name)),
            "adapter/adapter_model.safetensors": b"x" * 10_000,
        }
        entries = [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in files.items()
        ]
        manifest = json.dumps({"files": entries}).encode()
        for path, data in {**files, "manifest.json": manifest}.items():
            storage.write_bytes(uri.child(path), data)
        return ModelAddress(name, uri, hashlib.sha256(manifest).hexdigest())

    return call


def cache(folder: Path, storage: Storage, most_bytes: int | None = None) -> ModelFiles:
    return ModelFiles(folder / "cache", most_bytes, lambda: storage)


def test_a_model_is_downloaded_once_without_its_adapter(
    tmp_path: Path, storage: Storage, publish: Publish
) -> None:
    address = publish("tone")
    files = cache(tmp_path, storage)
    folder = files.provide(address)
    assert folder.name == address.manifest_sha256
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "manifest.json"}
    assert isinstance(address.location, S3Uri)
    storage.write_bytes(address.location.child("model.safetensors"), b"other")
    assert files.provide(address) == folder
    assert [*(tmp_path / "cache").iterdir()] == [folder]


def test_another_process_verifies_what_it_finds(
    tmp_path: Path, storage: Storage, publish: Publish
) -> None:
    address = publish("tone")
    folder = cache(tmp_path, storage).provide(address)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(b"\0" * len(whole))
    (tmp_path / "cache" / ".part-left").mkdir()
    assert cache(tmp_path, storage).provide(address) == folder
    assert (folder / "model.safetensors").read_bytes() == whole
    assert [*(tmp_path / "cache").iterdir()] == [folder]


def test_changed_files_are_refused_and_leave_nothing(
    tmp_path: Path, storage: Storage, publish: Publish
) -> None:
    address = publish("tone")
    assert isinstance(address.location, S3Uri)
    files = cache(tmp_path, storage)
    other = ModelAddress("tone", address.location, "0" * 64)
    with pytest.raises(FailureError, match="differs from the published one"):
        files.provide(other)
    weights = storage.read_bytes(address.location.child("model.safetensors"))
    for changed, words in ((b"other", "has 5 bytes instead of"), (bytes(len(weights)), "SHA-256")):
        storage.write_bytes(address.location.child("model.safetensors"), changed)
        with pytest.raises(FailureError, match=f"is damaged: model.safetensors .*{words}"):
            files.provide(address)
    storage.write_bytes(address.location.child("manifest.json"), b"[]")
    with pytest.raises(FailureError, match="contains no published model"):
        files.provide(ModelAddress("tone", address.location))
    assert [*(tmp_path / "cache").iterdir()] == []


@pytest.mark.parametrize("size", [10**15, 10**400], ids=["large", "absurd"])
def test_a_size_that_only_the_manifest_has_deletes_no_other_model(
    tmp_path: Path, storage: Storage, publish: Publish, size: int
) -> None:
    files = cache(tmp_path, storage, 3500)
    kept = files.provide(publish("one"))
    files.release(kept)
    address = publish("two")
    assert isinstance(address.location, S3Uri)
    manifest = json.loads(storage.read_bytes(address.location.child("manifest.json")))
    manifest["files"][1]["size"] = size
    storage.write_bytes(address.location.child("manifest.json"), json.dumps(manifest).encode())
    with pytest.raises(FailureError, match=r"restore the files|contains no published model"):
        files.provide(ModelAddress("two", address.location))
    assert [*(tmp_path / "cache").iterdir()] == [kept]


def test_files_that_cannot_be_served_are_a_problem_that_no_retry_solves(
    tmp_path: Path, storage: Storage, publish: Publish
) -> None:
    address = publish("tone")
    assert isinstance(address.location, S3Uri)
    storage.delete(address.location.child("manifest.json"))
    with pytest.raises(Problem) as caught:
        load(address, cache(tmp_path, storage), cpu=True)
    assert (caught.value.status, caught.value.code) == (503, "model_unusable")
    assert caught.value.message == (
        f"The model 'tone' cannot be used: there is no model at {address.location} (endpoint "
        f"{storage.endpoint}): its files were deleted, or the address is wrong; restore the files, "
        "correct the address, or train the model again."
    )


def test_the_least_recently_used_unused_model_makes_room(
    tmp_path: Path, storage: Storage, publish: Publish
) -> None:
    first, second, third = (publish(name) for name in ("one", "two", "three"))
    files = cache(tmp_path, storage, 3500)
    folders = [files.provide(address) for address in (first, second)]
    for age, folder in enumerate(folders):
        os.utime(folder, (age, age))
    files.release(folders[1])
    newest = files.provide(third)  # the first is older, but in use
    assert {*(tmp_path / "cache").iterdir()} == {folders[0], newest}
    files.release(folders[0])
    files.release(newest)
    with pytest.raises(Problem, match="more than the cache"):
        files.provide(publish("large", 5000))
    assert {*(tmp_path / "cache").iterdir()} == {folders[0], newest}


def test_a_folder_is_checked_too(tmp_path: Path, storage: Storage) -> None:
    with pytest.raises(Problem, match="contains no model"):
        cache(tmp_path, storage).provide(ModelAddress("m", tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(Problem, match=r"model\.safetensors"):
        cache(tmp_path, storage).provide(ModelAddress("m", tmp_path))
