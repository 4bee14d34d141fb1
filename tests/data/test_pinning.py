"""A base model has one revision from the prepare Job to the published model, or is refused."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import ENV_BASE_REVISION, EXIT_USER, Reason
from finetune_api.outcome import Failure
from finetune_api.tasks import BaseModelRef
from finetune_api.uris import S3Uri
from finetune_data.models.base_models import fetch_base_model
from finetune_data.models.cache.model_cache import ModelCache
from finetune_data.models.cache.volume import CacheVolume
from finetune_data.models.pinning import pin_base_model
from finetune_data.models.skeleton import fetch_skeleton
from finetune_data.prepare.job import prepare
from finetune_data.termination import exit_code
from finetune_storage.manifests import file_entry
from finetune_storage.s3 import Storage
from tests.data.builders import (
    base_model,
    examples,
    jsonl,
    prepare_task,
    put_folder,
    safetensors_bytes,
)
from tests.data.hub import COMMIT, Hub
from tests.data.stub_server import StubServer

NEXT = "d" * 40


@pytest.fixture
def model(storage: Storage, bucket: str, model_folder: Path) -> S3Uri:
    uri = S3Uri(bucket, "models/tiny")
    put_folder(storage, model_folder, uri)
    storage.write_bytes(uri.child("model.safetensors"), safetensors_bytes())
    return uri


def pinned(uri: object, storage: Storage, folder: Path) -> BaseModelRef:
    return pin_base_model(base_model(str(uri)), folder / "pinned", storage)


def refusal(base: BaseModelRef, folder: Path, storage: Storage) -> Failure:
    """The failure of all that read the model: the trainer, with and without a cache, and checks."""
    (folder / "cache").mkdir(parents=True)
    cache = ModelCache(CacheVolume.open(folder / "cache"))
    failures = []
    for number, fetch in enumerate(
        (
            lambda to: fetch_base_model(base, to, storage, weights=True),
            lambda to: fetch_base_model(base, to, storage, weights=True, cache=cache),
            lambda to: fetch_base_model(base, to, storage, weights=False),
            lambda to: fetch_skeleton(base, to, storage),
        )
    ):
        with pytest.raises(FailureError) as caught:
            fetch(folder / str(number))
        failures.append(caught.value.failure)
    assert not list(folder.rglob("*.safetensors"))
    assert len({failure.message for failure in failures}) == 1
    failure = failures[0]
    assert (failure.code, failure.param) == (Reason.BASE_MODEL_CHANGED, "model")
    assert exit_code(failure) == EXIT_USER
    assert base.uri in failure.message
    assert base.revision is not None and base.revision in failure.message
    assert failure.hint
    return failure


# --- S3 ---


def test_the_same_files_have_the_same_revision(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    base = pinned(model, storage, tmp_path)
    assert base.revision is not None and base.revision.startswith("sha256:")
    assert pin_base_model(base, tmp_path, storage) == base
    for name in ("README.md", "notes.txt", "pytorch_model.bin", "original/model.safetensors"):
        storage.write_bytes(model.child(name), b"# no part of the training")
    assert pinned(model, storage, tmp_path) == base
    fetch_base_model(base, tmp_path / "again", storage, weights=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.safetensors", safetensors_bytes()[:-4] + b"\1\2\3\4"),
        ("config.json", b'{"model_type": "gpt2"}'),
        ("chat_template.jinja", b"{{ messages }}"),
        ("additional_chat_templates/tool_use.jinja", b"{{ tools }}"),
        ("generation_config.json", b"{}"),
        ("model-00002-of-00002.safetensors", safetensors_bytes()),
        ("manifest.json", b"{}"),
        ("tokenizer.json", None),
    ],
)
def test_a_replaced_an_added_and_a_missing_file_are_refused(
    name: str, data: bytes | None, storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    base = pinned(model, storage, tmp_path)
    if data is None:
        storage.delete(model.child(name))
    else:
        storage.write_bytes(model.child(name), data)
    refusal(base, tmp_path / "changed", storage)


def publish(model: S3Uri, storage: Storage, folder: Path) -> bytes:
    """Add the manifest of a fine-tuned model."""
    names = storage.download_prefix(model, folder)
    files = [file_entry(folder, name).to_dict() for name in names if name != "manifest.json"]
    data = json.dumps({"kind": "model", "files": files}).encode()
    storage.write_bytes(model.child("manifest.json"), data)
    return data


def test_a_fine_tuned_model_has_the_digest_of_its_manifest(
    storage: Storage, bucket: str, model: S3Uri, tmp_path: Path
) -> None:
    data = publish(model, storage, tmp_path / "model")
    base = pinned(model, storage, tmp_path)
    assert base.revision == f"manifest-sha256:{sha256(data).hexdigest()}"
    copy = S3Uri(bucket, "copy")
    for name in storage.download_prefix(model, tmp_path / "copied"):
        storage.upload_file(tmp_path / "copied" / name, copy.child(name))
    assert pinned(copy, storage, tmp_path).revision == base.revision


def test_a_file_that_is_not_in_the_manifest_is_refused(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    publish(model, storage, tmp_path / "model")
    base = pinned(model, storage, tmp_path)
    storage.write_bytes(model.child("chat_template.jinja"), b"{{ messages }}")
    refusal(base, tmp_path / "added", storage)


def test_a_model_that_another_run_published_at_the_same_address_is_refused(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    publish(model, storage, tmp_path / "first")
    base = pinned(model, storage, tmp_path)
    storage.write_bytes(model.child("model.safetensors"), safetensors_bytes(8))
    publish(model, storage, tmp_path / "second")
    refusal(base, tmp_path / "changed", storage)


def test_weights_that_differ_from_the_manifest_are_still_refused(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    """The manifest is the same; the digests of the downloaded files are compared with it."""
    publish(model, storage, tmp_path / "model")
    base = pinned(model, storage, tmp_path)
    storage.write_bytes(model.child("model.safetensors"), safetensors_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(FailureError) as caught:
        fetch_base_model(base, tmp_path / "changed", storage, weights=True)
    assert "model.safetensors has a SHA-256" in caught.value.failure.message


# --- a hub ---


def test_a_branch_that_moves_on_does_not_move_a_pinned_model(
    hub: Hub, storage: Storage, tmp_path: Path
) -> None:
    base = pinned("hf://acme/tiny@v1", storage, tmp_path)
    assert base.revision == COMMIT
    changed = safetensors_bytes()[:-4] + b"\1\2\3\4"
    hub.push(NEXT, model_safetensors=changed)
    (tmp_path / "cache").mkdir()
    cache = ModelCache(CacheVolume.open(tmp_path / "cache"))
    for name, used in (("plain", None), ("cached", cache), ("again", cache)):
        folder = fetch_base_model(base, tmp_path / name, storage, weights=True, cache=used)
        assert (folder / "model.safetensors").read_bytes() == safetensors_bytes()
    unpinned = base.replace(revision=None)
    folder = fetch_base_model(unpinned, tmp_path / "new", storage, weights=True, cache=cache)
    assert (folder / "model.safetensors").read_bytes() == changed
    assert pinned("hf://acme/tiny@v1", storage, tmp_path).revision == NEXT
    fetch_skeleton(base, tmp_path / "skeleton", storage)


def test_a_commit_that_the_hub_has_lost_is_refused(
    hub: Hub, storage: Storage, tmp_path: Path
) -> None:
    base = pinned("hf://acme/tiny@v1", storage, tmp_path)
    hub.push(NEXT)
    hub.former.clear()  # the branch was force-pushed, or the repository was created again
    assert "the hub no longer has this commit" in refusal(base, tmp_path / "x", storage).message


def test_a_mirror_that_ignores_revisions_is_refused(
    hub: Hub, stub: StubServer, storage: Storage, tmp_path: Path
) -> None:
    base = pinned("hf://acme/tiny@v1", storage, tmp_path)
    hub.push(NEXT)
    hub.former = {COMMIT: hub.files}
    answer = hub.__call__

    def newest(request: object) -> object:
        request.path = request.path.replace(COMMIT, NEXT)  # type: ignore[attr-defined]
        return answer(request)  # type: ignore[arg-type]

    stub.answer = newest  # type: ignore[assignment]
    assert f"it now has {NEXT}" in refusal(base, tmp_path / "x", storage).message


def test_offline_the_pinned_commit_is_used_and_no_other(
    hub: Hub,
    stub: StubServer,
    monkeypatch: pytest.MonkeyPatch,
    storage: Storage,
    tmp_path: Path,
    model_folder: Path,
) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "cache" / "models--acme--tiny"
    for commit in (COMMIT, NEXT):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in model_folder.iterdir():
            (snapshot / path.name).write_bytes(path.read_bytes())
        (snapshot / "model.safetensors").write_bytes(safetensors_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    base = pinned("hf://acme/tiny@v1", storage, tmp_path)
    assert base.revision == COMMIT
    (repository / "refs" / "v1").write_text(NEXT)
    found = fetch_base_model(base, tmp_path / "m", storage, weights=True)
    assert found == repository / "snapshots" / COMMIT
    missing = base.replace(revision="e" * 40)
    with pytest.raises(FailureError) as caught:
        fetch_base_model(missing, tmp_path / "n", storage, weights=True)
    assert f"hf://acme/tiny@{'e' * 40} is not in the hub's cache" in caught.value.failure.message


# --- the prepare pod ---


def test_the_containers_of_the_prepare_pod_share_one_revision(
    hub: Hub, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_BASE_REVISION, str(tmp_path / "base-revision.json"))
    assert pinned("hf://acme/tiny@v1", storage, tmp_path).revision == COMMIT
    hub.push(NEXT)
    assert pinned("hf://acme/tiny@v1", storage, tmp_path).revision == COMMIT
    (tmp_path / "base-revision.json").write_text("no JSON")
    assert pinned("hf://acme/tiny@v1", storage, tmp_path).revision == NEXT


def test_the_outcome_of_the_prepare_job_has_the_revision(
    storage: Storage, bucket: str, model_folder: Path, tmp_path: Path
) -> None:
    uri = S3Uri(bucket, "model")
    put_folder(storage, model_folder, uri)
    storage.write_bytes(S3Uri(bucket, "train.jsonl"), jsonl(examples(20)))
    task = prepare_task(bucket)
    prepared = prepare(task, storage, tmp_path).prepared
    assert prepared is not None
    assert prepared.base_revision == pinned(task.base.uri, storage, tmp_path).revision


def test_a_base_model_that_was_replaced_after_its_check_is_not_prepared(
    storage: Storage,
    bucket: str,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENV_BASE_REVISION, str(tmp_path / "base-revision.json"))
    put_folder(storage, model_folder, S3Uri(bucket, "model"))
    storage.write_bytes(S3Uri(bucket, "train.jsonl"), jsonl(examples(20)))
    task = prepare_task(bucket)
    pin_base_model(task.base, tmp_path / "check", storage)
    storage.write_bytes(S3Uri(bucket, "model/generation_config.json"), b"{}")
    failure = prepare(task, storage, tmp_path).failure
    assert failure is not None
    assert failure.code == Reason.BASE_MODEL_CHANGED
