"""The headers of weights: read from S3 and from a hub without the weights, and checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.uris import S3Uri
from finetune_data.models import hub as hub_module
from finetune_data.models.safetensors_files import StoredTensor, find_truncation, read_tensors
from finetune_data.models.skeleton import Skeleton, fetch_skeleton, read_skeleton
from finetune_storage.s3 import Storage
from tests.data.builders import base_model, put_folder
from tests.data.hub import COMMIT, Hub
from tests.data.stub_server import Answer, Request, StubServer

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LARGE = 4_000_000  # bytes of a tensor


def file_of(tensors: dict[str, Any], size: int) -> bytes:
    """A file with this header and `size` bytes of data."""
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    """A model in two shards, of which one is large."""
    folder = tmp_path / "source"
    shutil.copytree(model_folder, folder)
    size = LARGE
    (folder / FIRST).write_bytes(
        file_of({"a": entry(0, size, [size // 4]), "__metadata__": {"format": "pt"}}, size)
    )
    (folder / SECOND).write_bytes(file_of({"b": entry(0, 8, [2, 2], "BF16")}, 8))
    index = {"weight_map": {"a": FIRST, "b": SECOND}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def assert_is_skeleton(found: Skeleton, folder: Path) -> None:
    """It has the names, types, and shapes of the model, and nearly none of its bytes."""
    assert found.tensors == {
        "a": StoredTensor("F32", (LARGE // 4,), 0, LARGE),
        "b": StoredTensor("BF16", (2, 2), 0, 8),
    }
    assert read_skeleton(found.folder).files == read_skeleton(folder).files
    for shard in (FIRST, SECOND):
        written = found.folder / shard
        assert written.stat().st_size == (folder / shard).stat().st_size
        assert written.stat().st_blocks * 512 < 100_000
        with safe_open(written, "np") as file:
            assert [*file.keys()] == [*found.files[shard]]


def test_of_a_model_in_s3_only_the_headers_are_read(
    storage: Storage, bucket: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = S3Uri(bucket, "models/large")
    put_folder(storage, model, uri)
    read: list[int] = []
    original = storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *it: read.append(it[2]) or original(*it))
    found = fetch_skeleton(base_model(str(uri)), tmp_path / "found", storage)
    assert_is_skeleton(found, model)
    assert sum(read) < 1000
    assert (found.folder / "tokenizer.json").is_file()


def test_the_digest_changes_with_names_shapes_types_settings_and_the_tokenizer(
    storage: Storage, bucket: str, model: Path, tmp_path: Path
) -> None:
    digests = []

    def add(name: str, data: bytes) -> None:
        former = (model / name).read_bytes() if (model / name).exists() else None
        (model / name).write_bytes(data)
        uri = S3Uri(bucket, f"models/{len(digests)}")
        put_folder(storage, model, uri)
        made = fetch_skeleton(base_model(str(uri)), tmp_path / str(len(digests)), storage)
        digests.append(made.digest)
        if former is not None:
            (model / name).write_bytes(former)

    model.joinpath(FIRST).write_bytes(file_of({"a": entry(0, 4, [1])}, 4))
    add(SECOND, file_of({"b": entry(0, 8, [2, 2], "BF16")}, 8))
    add(SECOND, file_of({"b": entry(0, 8, [4], "BF16")}, 8))
    add(SECOND, file_of({"b": entry(0, 8, [2, 2], "F16")}, 8))
    add(SECOND, file_of({"c": entry(0, 8, [2, 2], "BF16")}, 8))
    add("config.json", b'{"model_type": "llama", "x": 1}')
    add("tokenizer_config.json", b"{}")
    assert len(set(digests)) == len(digests)
    add("README.md", b"another card")
    add(SECOND, file_of({"b": entry(0, 8, [2, 2], "BF16")}, 8)[:-1] + b"\1")
    assert digests[-2:] == [digests[0], digests[0]]


DAMAGE = {
    "overlap": ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "overlap: a and b"),
    "hole": ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12, "4 bytes of no tensor before b"),
    "size": ({"a": entry(0, 8, [3])}, 8, "8 bytes for a, which do not fit its type F32"),
    "absurd": ({"a": entry(0, 8, [2**40, 2**40])}, 8, "do not fit"),
    "huge": ({"a": entry(0, 2**70, [2])}, 8, "an impossible shape or place: a"),
    "negative": ({"a": entry(0, 8, [-2])}, 8, "an impossible shape or place: a"),
    "fraction": ({"a": entry(0, 8, [2.5])}, 8, "an impossible shape or place: a"),  # type: ignore[list-item]
    "type": ({"a": entry(0, 8, [2], "Q4")}, 8, "unknown type 'Q4': a"),
    "beyond": ({"a": entry(0, 8, [2])}, 4, "bytes, but its header says"),
    "rest": ({"a": entry(0, 8, [2])}, 9, "bytes, but its header says"),
    "text": ({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, 4, "impossible"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_header_is_a_sentence_and_an_error_of_the_library(
    name: str, tmp_path: Path
) -> None:
    tensors, size, expected = DAMAGE[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of(tensors, size))
    assert expected in (find_truncation(path) or "")
    with pytest.raises(Exception), safe_open(path, "np"):  # noqa: B017 - the oracle
        pass


def test_every_type_of_the_library_is_known(tmp_path: Path) -> None:
    kinds = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16}
    kinds |= {"U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64}
    kinds |= {"F64": 64, "I64": 64, "U64": 64, "F4": 4}
    tensors, end = {}, 0
    for kind, bits in kinds.items():
        tensors[kind] = entry(end, end + 2 * bits // 8 * 2, [4], kind)
        end += 2 * bits // 8 * 2
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of(tensors, end))
    assert [*read_tensors(path)] == [*kinds]
    with safe_open(path, "np") as file:
        assert {*file.keys()} == {*kinds}


def test_damage_in_s3_names_the_file_and_the_model(
    storage: Storage, bucket: str, model: Path, tmp_path: Path
) -> None:
    uri = S3Uri(bucket, "models/damaged")
    (model / FIRST).write_bytes(file_of({"a": entry(0, 4, [1])}, 4))
    put_folder(storage, model, uri)
    tensors, size, expected = DAMAGE["overlap"]
    storage.write_bytes(uri.child(SECOND), file_of(tensors, size))
    failure = failure_of(str(uri), storage, tmp_path / "a")
    assert f"{SECOND} has tensors that {expected}" in failure
    storage.write_bytes(uri.child(SECOND), b"\xff" * 100)
    assert f"{SECOND} is not a safetensors file" in failure_of(str(uri), storage, tmp_path / "b")
    storage.delete(uri.child(SECOND))
    assert f"{SECOND} is missing" in failure_of(str(uri), storage, tmp_path / "c")


def failure_of(uri: str, storage: Storage, folder: Path) -> str:
    with pytest.raises(FailureError) as caught:
        fetch_skeleton(base_model(uri), folder, storage)
    assert caught.value.failure.code == Reason.BASE_MODEL_INVALID
    assert uri in caught.value.failure.message
    return caught.value.failure.message


# --- the hub --------------------------------------------------------------------------------------


def ranged(hub: Hub, request: Request) -> Answer:
    """The hub's answer with the requested range only."""
    answer = hub(request)
    wanted = request.headers.get("Range")
    if answer.status != 200 or wanted is None or "safetensors" not in request.path:
        return answer
    start, end = map(int, wanted.removeprefix("bytes=").split("-"))
    total = len(answer.body)
    part = answer.body[start : end + 1]
    marks = {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{total}"}
    return Answer(206, part, answer.headers | marks)


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("first", [100_000, 16])
def test_of_a_model_on_a_hub_only_the_headers_are_read(
    has_ranges: bool,
    first: int,
    hub: Hub,
    stub: StubServer,
    model: Path,
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "FIRST_BYTES", first)
    hub.files |= {path.name: path.read_bytes() for path in model.iterdir()}
    if has_ranges:
        stub.answer = lambda request: ranged(hub, request)
    found = fetch_skeleton(base_model("hf://acme/tiny@v1"), tmp_path / "m", storage)
    assert_is_skeleton(found, model)


def test_offline_the_headers_come_from_the_cache_which_is_not_written(
    hub: Hub,
    stub: StubServer,
    model: Path,
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    snapshot = cache / "models--acme--tiny" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    (cache / "models--acme--tiny" / "refs").mkdir()
    (cache / "models--acme--tiny" / "refs" / "v1").write_text(COMMIT)
    model.rename(snapshot)
    before = {path.name: path.stat().st_mtime_ns for path in snapshot.iterdir()}
    found = fetch_skeleton(base_model("hf://acme/tiny@v1"), tmp_path / "m", storage)
    assert_is_skeleton(found, snapshot)
    assert {path.name: path.stat().st_mtime_ns for path in snapshot.iterdir()} == before
    assert stub.requests == []
