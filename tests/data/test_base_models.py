"""Base models from S3 and from a hub: complete and safe, or one sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import EXIT_UNAVAILABLE, EXIT_USER, Reason
from finetune_api.outcome import Failure
from finetune_api.uris import S3Uri
from finetune_data.models.base_models import fetch_base_model
from finetune_data.models.cache.model_cache import ModelCache
from finetune_data.models.cache.volume import CacheVolume
from finetune_data.termination import exit_code
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry
from tests.data.builders import base_model, objects_read, put_folder, safetensors_bytes
from tests.data.hub import COMMIT, Hub
from tests.data.stub_server import Answer, Request, StubServer

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SHARDS = {"weight_map": {"a": FIRST, "b": SECOND}}


@pytest.fixture
def model(storage: Storage, bucket: str, model_folder: Path) -> S3Uri:
    """A complete model in S3, next to files that are not needed."""
    uri = S3Uri(bucket, "models/tiny")
    put_folder(storage, model_folder, uri)
    storage.write_bytes(uri.child("model.safetensors"), safetensors_bytes())
    for name in ("pytorch_model.bin", "modeling_tiny.py", "original/model.safetensors"):
        storage.write_bytes(uri.child(name), b"unwanted")
    return uri


def fetch(uri: object, folder: Path, storage: Storage, weights: bool = True) -> Path:
    return fetch_base_model(base_model(str(uri)), folder / "model", storage, weights=weights)


def failure_of(uri: object, folder: Path, storage: Storage, weights: bool = True) -> Failure:
    with pytest.raises(FailureError) as caught:
        fetch(uri, folder, storage, weights)
    assert str(uri) in caught.value.failure.message
    assert caught.value.failure.param == "model"
    return caught.value.failure


def test_only_safetensors_and_json_are_downloaded(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    folder = fetch(model, tmp_path, storage)
    small = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.rglob("*")} == {*small, "model.safetensors"}
    folder = fetch(model, tmp_path / "second", storage, weights=False)
    assert {path.name for path in folder.rglob("*")} == small


def test_further_chat_templates_are_downloaded_and_nothing_else_of_a_subfolder(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    for name in ("tool_use.jinja", "deeper/x.jinja", "run.py", "notes.txt"):
        storage.write_bytes(model.child(f"additional_chat_templates/{name}"), b"{{ tools }}")
    storage.write_bytes(model.child("other/rag.jinja"), b"")
    for weights in (True, False):
        folder = fetch(model, tmp_path / str(weights), storage, weights=weights)
        found = sorted(path for path in folder.rglob("*") if path.parent != folder)
        assert found == [folder / "additional_chat_templates" / "tool_use.jinja"]
        assert found[0].read_bytes() == b"{{ tools }}"


def test_a_further_chat_template_is_compared_with_our_own_manifest(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    text, name = b"{{ tools }}", "additional_chat_templates/tool_use.jinja"
    storage.write_bytes(model.child(name), text)
    entry = {"path": name, "size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    manifest = {"kind": "model", "files": [entry]}
    storage.write_bytes(model.child("manifest.json"), json.dumps(manifest).encode())
    fetch(model, tmp_path / "right", storage, weights=False)
    storage.write_bytes(model.child(name), b"{{ other }}")
    failure = failure_of(model, tmp_path / "changed", storage, weights=False)
    assert f"{name} has a SHA-256" in failure.message


def test_a_missing_model_is_reported(storage: Storage, bucket: str, tmp_path: Path) -> None:
    for uri in (f"s3://{bucket}/nothing", "s3://no-such-bucket/x"):
        failure = failure_of(uri, tmp_path, storage, weights=False)
        assert failure.code == Reason.BASE_MODEL_NOT_FOUND
        assert exit_code(failure) == EXIT_USER
    storage.write_bytes(S3Uri(bucket, "deeper/model/config.json"), b"{}")
    failure = failure_of(f"s3://{bucket}/deeper", tmp_path, storage)
    assert failure.code == Reason.BASE_MODEL_NOT_FOUND
    assert "has no config.json" in failure.message


def test_pickled_weights_are_never_downloaded(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    key = model.child("model.safetensors")
    storage._client.delete_object(Bucket=key.bucket, Key=key.key)
    failure = failure_of(model, tmp_path, storage)
    assert failure.code == Reason.BASE_MODEL_INVALID
    assert "pytorch_model.bin" in failure.message
    assert not list(tmp_path.rglob("*.bin"))
    fetch(model, tmp_path, storage, weights=False)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"[]", "config.json is not a JSON object"),
        ("config.json", b"{}", "config.json names no model_type"),
        ("config.json", b"[" * 100_000, "config.json is not JSON"),
        ("model.safetensors", b"", "is not a safetensors file, or is cut off"),
        ("model.safetensors", b"\xff" * 100, "is not a safetensors file, or is cut off"),
        ("model.safetensors", b"\2" + bytes(7) + b"[]", "does not have the header"),
        ("model.safetensors", safetensors_bytes()[:-1], "bytes, but its header says"),
        ("model.safetensors", safetensors_bytes() + b"x", "bytes, but its header says"),
        ("model.safetensors.index.json", b'{"x": 1}', "has no weight_map"),
        ("model.safetensors.index.json", json.dumps(SHARDS).encode(), "00001-of-00002.safetensors"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "../../etc/passwd"}}',
            "lists files that are not model*.safetensors",
        ),
    ],
)
def test_a_broken_model_is_a_sentence(
    storage: Storage, model: S3Uri, tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    storage.write_bytes(model.child(name), data)
    failure = failure_of(model, tmp_path, storage)
    assert failure.code == Reason.BASE_MODEL_INVALID
    assert expected in failure.message


def test_a_model_in_shards_is_complete(storage: Storage, model: S3Uri, tmp_path: Path) -> None:
    storage.write_bytes(model.child("model.safetensors.index.json"), json.dumps(SHARDS).encode())
    for shard in (FIRST, SECOND):
        storage.write_bytes(model.child(shard), safetensors_bytes())
    assert len(list(fetch(model, tmp_path, storage).glob("model-*.safetensors"))) == 2


def test_our_own_manifest_is_checked(storage: Storage, model: S3Uri, tmp_path: Path) -> None:
    weights = safetensors_bytes()
    entry = {
        "path": "model.safetensors",
        "size": len(weights),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    beside = {**entry, "path": "adapter/adapter_model.safetensors"}  # is never fetched
    manifest = {"kind": "model", "files": [entry, beside], "whatever": 1}
    storage.write_bytes(model.child("manifest.json"), json.dumps(manifest).encode())
    fetch(model, tmp_path / "whole", storage)
    fetch(model, tmp_path / "small", storage, weights=False)
    other = bytearray(weights)
    other[-1] = 1
    storage.write_bytes(model.child("model.safetensors"), bytes(other))
    assert "SHA-256" in failure_of(model, tmp_path / "flipped", storage).message


def test_a_manifest_of_another_tool_is_ignored(
    storage: Storage, model: S3Uri, tmp_path: Path
) -> None:
    for number, data in enumerate((b"{}", b"[]", b"\xff", b'{"files": ["a"]}')):
        storage.write_bytes(model.child("manifest.json"), data)
        fetch(model, tmp_path / str(number), storage)


def test_an_address_of_neither_kind_is_refused(storage: Storage, tmp_path: Path) -> None:
    for uri in ("https://example.com/x", "hf://only-a-name", "s3://bucket/../x"):
        assert failure_of(uri, tmp_path, storage).code == Reason.BASE_MODEL_INVALID


# --- the hub ---


def test_a_model_is_downloaded_from_a_hub(
    hub: Hub, stub: StubServer, storage: Storage, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    base = base_model("hf://acme/tiny@v1")
    folder = fetch_base_model(
        base, tmp_path / "m", storage, weights=True, progress=lambda *it: seen.append(it)
    )
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {name for name in hub.files if not name.endswith(".py") and "/" not in name}
    assert seen[-1][0] == seen[-1][1] > 0
    template = folder / "additional_chat_templates" / "tool_use.jinja"
    assert template.read_bytes() == b"{{ tools }}"
    stub.requests.clear()
    folder = fetch_base_model(base, tmp_path / "small", storage, weights=False)
    assert not (folder / "model.safetensors").exists()
    assert not any("safetensors" in request for request in stub.requests)
    assert (folder / "additional_chat_templates" / "tool_use.jinja").is_file()


def test_a_model_in_the_hubs_own_cache_has_one_folder(
    hub: Hub, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file arrives first, the result is the folder of the config."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.files = dict(sorted(hub.files.items()))  # templates are first
    base = base_model("hf://acme/tiny@v1")
    folder = fetch_base_model(base, tmp_path / "m", storage, weights=False)
    assert folder.name == COMMIT
    assert (folder / "config.json").is_file()
    assert (folder / "additional_chat_templates" / "tool_use.jinja").is_file()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("hf://acme/other", "is not on the hub"), ("hf://acme/tiny@v2", "has no revision 'v2'")],
)
def test_a_model_that_the_hub_lacks_is_reported(
    hub: Hub, storage: Storage, tmp_path: Path, uri: str, expected: str
) -> None:
    failure = _hub_failure(uri, tmp_path, storage)
    assert failure.code == Reason.BASE_MODEL_NOT_FOUND
    assert expected in failure.message


def test_a_gated_model_needs_a_token(
    hub: Hub, stub: StubServer, storage: Storage, tmp_path: Path
) -> None:
    def answer(request: Request) -> Answer:
        if request.path.startswith("/api"):
            return hub(request)
        return Answer(403, b"{}", {"X-Error-Code": "GatedRepo"})

    stub.answer = answer
    failure = _hub_failure("hf://acme/tiny@v1", tmp_path, storage)
    assert failure.code == Reason.BASE_MODEL_NOT_FOUND
    assert failure.hint is not None
    assert "HF_TOKEN" in failure.hint


def test_a_hub_without_safetensors_is_refused_before_the_download(
    hub: Hub, stub: StubServer, storage: Storage, tmp_path: Path
) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")
    failure = _hub_failure("hf://acme/tiny@v1", tmp_path, storage)
    assert failure.code == Reason.BASE_MODEL_INVALID
    assert len(stub.requests) == 1


def test_a_hub_that_does_not_answer_can_be_retried(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, storage: Storage, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    failure = _hub_failure("hf://acme/tiny@v1", tmp_path, storage)
    assert exit_code(failure) == EXIT_UNAVAILABLE
    assert "http://127.0.0.1:9" in failure.message


def test_offline_only_the_cache_is_used(
    hub: Hub,
    stub: StubServer,
    monkeypatch: pytest.MonkeyPatch,
    storage: Storage,
    tmp_path: Path,
    model_folder: Path,
) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    failure = _hub_failure("hf://acme/tiny@v1", tmp_path, storage)
    assert failure.code == Reason.BASE_MODEL_NOT_FOUND
    assert "HF_HUB_OFFLINE" in failure.message
    snapshot = cache / "models--acme--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    refs = cache / "models--acme--tiny" / "refs"
    refs.mkdir()
    (refs / "v1").write_text(COMMIT)
    for path in model_folder.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    (snapshot / "model.safetensors").write_bytes(safetensors_bytes())
    base = base_model("hf://acme/tiny@v1")
    assert fetch_base_model(base, tmp_path / "m", storage, weights=True) == snapshot
    assert stub.requests == []


def _hub_failure(uri: str, folder: Path, storage: Storage) -> Failure:
    with pytest.raises(FailureError) as caught:
        fetch_base_model(base_model(uri), folder / "model", storage, weights=True)
    assert uri in caught.value.failure.message
    return caught.value.failure


# --- the model cache ---


@pytest.fixture
def cache_root(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def fetch_cached(uri: object, folder: Path, storage: Storage, root: Path) -> Path:
    """Fetch as a new pod that shares the cache with earlier ones."""
    cache = ModelCache(CacheVolume.open(root))
    try:
        return fetch_base_model(
            base_model(str(uri)), folder / "model", storage, weights=True, cache=cache
        )
    finally:
        cache.close()


@pytest.fixture
def reads(storage: Storage) -> Iterator[list[str]]:
    """The names of all objects that are read."""
    with objects_read(storage) as names:
        yield names


def test_weights_are_read_from_s3_once(
    storage: Storage, model: S3Uri, tmp_path: Path, cache_root: Path, reads: list[str]
) -> None:
    first = fetch_cached(model, tmp_path / "first", storage, cache_root)
    assert reads.count("model.safetensors") == 1
    reads.clear()
    second = fetch_cached(model, tmp_path / "second", storage, cache_root)
    assert sorted(reads) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    for folder in (first, second):
        assert (folder / "model.safetensors").read_bytes() == safetensors_bytes()
    kept = {path.name for path in cache_root.rglob("*.*") if path.suffix in {".json", ".jinja"}}
    assert kept == {"verified.json"}


def test_a_pod_that_may_not_read_the_model_does_not_get_it_from_the_cache(
    storage: Storage, model: S3Uri, tmp_path: Path, cache_root: Path
) -> None:
    fetch_cached(model, tmp_path / "first", storage, cache_root)
    storage.delete(model.child("config.json"))
    with pytest.raises(FailureError) as caught:
        fetch_cached(model, tmp_path / "second", storage, cache_root)
    assert caught.value.failure.code == Reason.BASE_MODEL_NOT_FOUND


def test_a_model_that_is_replaced_in_s3_is_downloaded_again(
    storage: Storage, model: S3Uri, tmp_path: Path, cache_root: Path
) -> None:
    fetch_cached(model, tmp_path / "first", storage, cache_root)
    other = bytearray(safetensors_bytes())
    other[-1] = 1
    storage.write_bytes(model.child("model.safetensors"), bytes(other))
    folder = fetch_cached(model, tmp_path / "second", storage, cache_root)
    assert (folder / "model.safetensors").read_bytes() == other


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_model_that_is_replaced_during_the_download_is_not_used(
    storage: Storage,
    model: S3Uri,
    tmp_path: Path,
    cache_root: Path,
    is_cached: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = bytearray(safetensors_bytes())
    other[-1] = 1
    listing = storage.list
    weights = model.child("model.safetensors")

    def list_then_replace(uri: S3Uri) -> list[ObjectEntry]:
        found = listing(uri)
        storage.write_bytes(weights, bytes(other))
        return found

    with monkeypatch.context() as patch, pytest.raises(FailureError) as caught:
        patch.setattr(storage, "list", list_then_replace)
        if is_cached:
            fetch_cached(model, tmp_path / "first", storage, cache_root)
        else:
            fetch(model, tmp_path / "first", storage)
    assert exit_code(caught.value.failure) == EXIT_UNAVAILABLE
    assert "changed while it was read" in caught.value.failure.message
    assert not list(cache_root.rglob("*.safetensors"))
    storage.write_bytes(weights, safetensors_bytes())
    folder = fetch_cached(model, tmp_path / "second", storage, cache_root)
    assert (folder / "model.safetensors").read_bytes() == safetensors_bytes()


def test_the_digests_of_our_own_manifest_are_checked_in_the_cache(
    storage: Storage, model: S3Uri, tmp_path: Path, cache_root: Path
) -> None:
    entry = {"path": "model.safetensors", "size": len(safetensors_bytes()), "sha256": "0" * 64}
    storage.write_bytes(
        model.child("manifest.json"), json.dumps({"kind": "model", "files": [entry]}).encode()
    )
    with pytest.raises(FailureError) as caught:
        fetch_cached(model, tmp_path, storage, cache_root)
    assert caught.value.failure.code == Reason.BASE_MODEL_INVALID
    assert "SHA-256" in caught.value.failure.message


@pytest.mark.parametrize("weights", [True, False])
def test_a_volume_that_is_too_small_is_reported_before_the_download(
    storage: Storage,
    model: S3Uri,
    tmp_path: Path,
    reads: list[str],
    monkeypatch: pytest.MonkeyPatch,
    weights: bool,
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    failure = failure_of(model, tmp_path, storage, weights)
    assert failure.code == Reason.INTERNAL
    assert "GB of disk space, but" in failure.message
    assert str(tmp_path) in failure.message
    assert failure.hint is not None
    assert "runtimes[].modelCache" in failure.hint
    assert reads == []


def test_weights_are_downloaded_from_a_hub_once(
    hub: Hub, stub: StubServer, storage: Storage, tmp_path: Path, cache_root: Path
) -> None:
    for folder in ("first", "second"):
        stub.requests.clear()
        found = fetch_cached("hf://acme/tiny@v1", tmp_path / folder, storage, cache_root)
        assert (found / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
        reads = [request for request in stub.requests if "safetensors" in request]
        assert bool(reads) == (folder == "first")
        assert any("config.json" in request for request in stub.requests)
    kept = {path.name for path in cache_root.rglob("*") if path.is_file()}
    assert {name for name in kept if not name.endswith((".use", ".download"))} == {
        "model.safetensors",
        "verified.json",
        "space",
    }


def test_a_commit_on_a_hub_is_downloaded_if_it_changes_the_weights(
    hub: Hub, stub: StubServer, storage: Storage, tmp_path: Path, cache_root: Path
) -> None:
    other = bytearray(hub.files["model.safetensors"])
    other[-1] = 1
    changes = {"d": ("README.md", b"a new card"), "e": ("model.safetensors", bytes(other))}
    fetch_cached("hf://acme/tiny@v1", tmp_path / "first", storage, cache_root)
    for letter, (name, data) in changes.items():
        stub.requests.clear()
        hub.commit = letter * 40
        hub.files[name] = data
        found = fetch_cached("hf://acme/tiny@v1", tmp_path / letter, storage, cache_root)
        assert (found / name).read_bytes() == data
        reads = [request for request in stub.requests if "safetensors" in request]
        assert bool(reads) == (name == "model.safetensors")


def test_the_digest_that_the_hub_publishes_is_checked(
    hub: Hub, storage: Storage, tmp_path: Path, cache_root: Path
) -> None:
    weights = hub.files["model.safetensors"]
    hub.digests["model.safetensors"] = hashlib.sha256(weights).hexdigest()
    fetch_cached("hf://acme/tiny@v1", tmp_path / "first", storage, cache_root)
    hub.digests["model.safetensors"] = "0" * 64
    with pytest.raises(FailureError) as caught:
        fetch_cached("hf://acme/tiny@v1", tmp_path / "second", storage, cache_root)
    assert caught.value.failure.code == Reason.BASE_MODEL_INVALID
    assert "SHA-256" in caught.value.failure.message


def test_a_gated_model_in_the_cache_still_needs_a_token(
    hub: Hub, stub: StubServer, storage: Storage, tmp_path: Path, cache_root: Path
) -> None:
    fetch_cached("hf://acme/tiny@v1", tmp_path / "first", storage, cache_root)

    def answer(request: Request) -> Answer:
        if request.path.startswith("/api"):
            return hub(request)
        return Answer(403, b"{}", {"X-Error-Code": "GatedRepo"})

    stub.answer = answer
    with pytest.raises(FailureError) as caught:
        fetch_cached("hf://acme/tiny@v1", tmp_path / "second", storage, cache_root)
    assert "is gated" in caught.value.failure.message


def test_a_cache_of_the_hub_takes_precedence(
    hub: Hub, storage: Storage, tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = fetch_cached("hf://acme/tiny@v1", tmp_path / "first", storage, cache_root)
    assert folder.is_relative_to(tmp_path / "hub")
    assert not list(cache_root.rglob("*.safetensors"))
