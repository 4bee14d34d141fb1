"""Objects that are replaced while they are read, on S3 and on stores with weaker versions.

Whatever the store: the bytes are those of one version, and of the version that was asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.uris import S3Uri
from finetune_data.models.base_models import find_remote_model
from finetune_data.prepare.main import POD
from finetune_data.read.sources import S3Source
from finetune_storage import transfers
from finetune_storage.errors import AlreadyExists, StorageError
from finetune_storage.messages import StorageProblem
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry, parse_entry
from tests.data.builders import examples, jsonl, prepare_task, put_folder
from tests.support.cases import every_nth
from tests.support.proxy import FaultyProxy, Seen, let_pass
from tests.support.stores import STORES

CHANGED = StorageProblem.CHANGED
OLD, NEW = b"old" * 1000, b"newer" * 1000


def problem_of(call: Callable[[], Any]) -> StorageProblem | None:
    with pytest.raises(StorageError) as caught:
        call()
    return caught.value.problem


def readers(storage: Storage, uri: S3Uri, folder: Path) -> dict[str, Callable[[], bytes]]:
    """Every way to read the version of an object that is there now."""
    entry = storage.head(uri)
    [listed] = storage.list(S3Uri(uri.bucket, uri.key.rpartition("/")[0]))

    def download(known: ObjectEntry) -> bytes:
        storage.download_listed(uri, known, folder / "file")
        return (folder / "file").read_bytes()

    return {
        "stream": lambda: storage.open_stream(uri, entry).read() or b"",
        "listed stream": lambda: storage.open_stream(uri, listed).read() or b"",
        "range": lambda: storage.read_range(uri, 0, 10**6, entry),
        "listed range": lambda: storage.read_range(uri, 0, 10**6, listed),
        "download": lambda: download(entry),
        "listed download": lambda: download(listed),
    }


@pytest.mark.slow
def test_every_store_is_read(client: Storage, bucket: str, weak: str, tmp_path: Path) -> None:
    uri = S3Uri(bucket, "data/file")
    client.write_bytes(uri, OLD)
    assert client.read_bytes(uri) == OLD
    assert client.read_range(uri, 2, 4) == OLD[2:6]
    assert client.exists(uri)
    for name, read in readers(client, uri, tmp_path).items():
        assert read() == OLD, name
    assert client.download_prefix(S3Uri(bucket, "data"), tmp_path / "all") == ["file"]
    assert (tmp_path / "all" / "file").read_bytes() == OLD


@pytest.mark.slow
def test_a_replaced_object_is_never_read_as_the_version_before_it(
    client: Storage, bucket: str, weak: str, tmp_path: Path
) -> None:
    uri = S3Uri(bucket, "data/file")
    client.write_bytes(uri, OLD)
    reads = readers(client, uri, tmp_path)
    client.write_bytes(uri, NEW)
    for name, read in reads.items():
        assert problem_of(read) is StorageProblem.CHANGED, name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", every_nth([0, 4, 8, 1, 23, 9], 2))
def test_a_large_object_is_downloaded_in_ranges_of_one_version(
    client: Storage, bucket: str, weak: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size
) -> None:
    monkeypatch.setattr(transfers, "PART_BYTES", 4)
    data, uri = bytes(range(size)), S3Uri(bucket, "large")
    client.write_bytes(uri, data)
    seen: list[tuple[int, int]] = []
    client.download_file(uri, tmp_path / "file", lambda *it: seen.append(it))
    assert (tmp_path / "file").read_bytes() == data
    assert not size or max(seen) == (size, size)


@pytest.mark.slow
def test_an_object_that_is_replaced_between_two_ranges_is_no_mixture(
    client: Storage,
    storage: Storage,
    bucket: str,
    weak: str,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfers, "PART_BYTES", 400)
    monkeypatch.setattr(transfers, "RANGES_AT_ONCE", 1)
    uri = S3Uri(bucket, "large")
    storage.write_bytes(uri, OLD)
    gets: list[Seen] = []

    def replace(seen: Seen) -> None:
        gets.extend([seen] if seen.method == "GET" else [])
        if len(gets) == 4 and seen.method == "GET":
            storage.write_bytes(uri, NEW)

    proxy.rule = replace
    try:
        failed = problem_of(lambda: client.download_file(uri, tmp_path / "file"))
    finally:
        proxy.rule = let_pass
    assert failed is StorageProblem.CHANGED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_same_size_and_second_are_told_apart_by_the_digest_alone(
    client: Storage, storage: Storage, bucket: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """Without ETags, the bytes of the second pass must be those that the first pass identified."""
    proxy.store = STORES["no ETags"]()
    uri = S3Uri(bucket, "train.jsonl")
    storage.write_bytes(uri, b"one")
    source = S3Source(uri, client, tmp_path)
    source.identify()
    assert source.identity.etag == ""
    assert source.identity.sha256 == hashlib.sha256(b"one").hexdigest()
    storage.write_bytes(uri, b"two")
    changed = storage.head(uri).modified != source._entry.modified  # the clock may have ticked
    with pytest.raises(StorageError) as caught, source.open() as stream:
        while stream.read(100):
            pass
    assert caught.value.problem is StorageProblem.CHANGED or changed
    proxy.store = STORES["S3"]()


@pytest.mark.slow
def test_an_object_is_created_once_and_replaced_only_in_the_version_that_was_read(
    client: Storage, bucket: str, weak: str
) -> None:
    uri = S3Uri(bucket, "claim")
    entry = client.create_bytes(uri, b"first")
    with pytest.raises(AlreadyExists):
        client.write_bytes(uri, b"second", only_if_absent=True)
    assert client.read_bytes(uri) == b"first"
    newer = client.replace_bytes(uri, b"the second", entry)
    assert client.read_version(uri)[0] == b"the second"
    assert newer.size == 10
    assert problem_of(lambda: client.replace_bytes(uri, b"a third", entry)) is CHANGED
    assert client.read_bytes(uri) == b"the second"
    client.delete(uri)
    assert problem_of(lambda: client.replace_bytes(uri, b"a third", newer)) is CHANGED
    assert not client.exists(uri)
    has = client.has_conditional_writes(uri, client.create_bytes(uri, b"x") and b"x")
    assert has == ("conditions" not in weak)


@pytest.mark.slow
def test_of_two_clients_that_create_an_object_at_once_the_first_one_notices(
    client: Storage, storage: Storage, bucket: str, weak: str, proxy: FaultyProxy
) -> None:
    """The other client writes between the check and the write of this one, or right after it."""
    uri = S3Uri(bucket, "claim")

    def write_before(seen: Seen) -> None:
        if seen.method == "PUT":
            storage.write_bytes(uri, b"the other")

    proxy.rule = write_before
    try:
        if weak == "conditions are ignored":
            client.create_bytes(uri, b"mine")  # nothing can tell; the other one reads it back
            return
        with pytest.raises(AlreadyExists):
            client.create_bytes(uri, b"mine")
    finally:
        proxy.rule = let_pass
    assert storage.read_bytes(uri) == b"the other"


def replaced_file(
    monkeypatch: pytest.MonkeyPatch, storage: Storage, uri: S3Uri, contents: list[bytes]
) -> None:
    """Replace the file after each of the first HEAD requests."""
    head = Storage.head

    def replacing(self: Storage, asked: S3Uri) -> ObjectEntry:
        found = head(self, asked)
        if asked == uri and contents:
            storage._client.put_object(Bucket=uri.bucket, Key=uri.key, Body=contents.pop(0))
        return found

    monkeypatch.setattr(Storage, "head", replacing)


FORMATS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {}


def _format(name: str):
    def register(write: Callable[[list[dict[str, Any]]], bytes]):
        FORMATS[name] = write
        return write

    return register


FORMATS["train.jsonl"] = jsonl
FORMATS["train.json"] = lambda rows: json.dumps(rows).encode()


@_format("train.csv")
def _csv(rows: list[dict[str, Any]]) -> bytes:
    lines = [f"{row['prompt']!r},{row['completion']!r}" for row in rows]
    return "\n".join(["prompt,completion", *lines]).encode()


@_format("train.parquet")
def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


@_format("train.xlsx")
def _xlsx(rows: list[dict[str, Any]]) -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    for row in [["prompt", "completion"], *([it["prompt"], it["completion"]] for it in rows)]:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_training_file_that_is_replaced_after_its_head_is_never_stored_under_its_key(
    name: str,
    storage: Storage,
    bucket: str,
    model_folder: Path,
    aws: pytest.MonkeyPatch,
) -> None:
    """The dataset of the old file must not have the rows of the new one."""
    put_folder(storage, model_folder, S3Uri(bucket, "model"))
    task = prepare_task(bucket, training_file=f"s3://{bucket}/{name}")
    uri, write = S3Uri(bucket, name), FORMATS[name]
    old, new = write(examples(300)), write(examples(250))
    storage.write_bytes(uri, old)
    replaced_file(aws, storage, uri, [new])
    outcome = POD.run(task.to_json())
    assert outcome.prepared is not None, outcome.failure
    assert outcome.prepared.training_examples == 250
    [manifest] = manifests(storage, task.run.output)
    assert manifest["source"]["inputs"]["train"]["sha256"] == hashlib.sha256(new).hexdigest()
    assert manifest["source"]["inputs"]["train"]["etag"] == storage.head(uri).etag
    storage.write_bytes(uri, old)
    again = POD.run(task.to_json())
    assert again.prepared is not None
    assert again.prepared.training_examples == 300
    assert again.prepared.dataset != outcome.prepared.dataset


@pytest.mark.slow
def test_a_file_that_is_replaced_again_and_again_is_an_error_with_its_field(
    storage: Storage, bucket: str, model_folder: Path, aws: pytest.MonkeyPatch
) -> None:
    put_folder(storage, model_folder, S3Uri(bucket, "model"))
    uri = S3Uri(bucket, "train.jsonl")
    storage.write_bytes(uri, jsonl(examples(300)))
    replaced_file(aws, storage, uri, [jsonl(examples(300 - n)) for n in range(1, 20)])
    failure = POD.run(prepare_task(bucket).to_json()).failure
    assert failure is not None
    assert (failure.code, failure.param) == ("S3Unavailable", "trainingFile")
    assert f"{uri}" in failure.message and "changed while it was read" in failure.message
    assert manifests(storage, prepare_task(bucket).run.output) == []


def manifests(storage: Storage, output: str) -> list[dict[str, Any]]:
    root = S3Uri.parse(output)
    found = [entry.key for entry in storage.list(root) if entry.key.endswith("/manifest.json")]
    return [json.loads(storage.read_bytes(S3Uri(root.bucket, key))) for key in found]


@pytest.mark.slow
def test_a_dataset_is_found_again_on_every_store(
    weak: str,
    proxy: FaultyProxy,
    storage: Storage,
    bucket: str,
    model_folder: Path,
    aws: pytest.MonkeyPatch,
) -> None:
    """The digest identifies a file where its ETag does not, so that equal files share a dataset."""
    aws.setenv("AWS_ENDPOINT_URL", proxy.url)
    put_folder(storage, model_folder, S3Uri(bucket, "model"))
    storage.write_bytes(S3Uri(bucket, "train.jsonl"), jsonl(examples(20)))
    task = prepare_task(bucket)
    first = POD.run(task.to_json())
    other = POD.run(task.replace(run=task.run.replace(uid="another")).to_json())
    assert first.prepared is not None, first.failure
    assert other.prepared == first.prepared
    assert len(manifests(storage, task.run.output)) == 1
    storage.write_bytes(S3Uri(bucket, "train.jsonl"), jsonl(examples(21)))
    changed = POD.run(task.to_json())
    assert changed.prepared is not None
    assert changed.prepared.dataset != first.prepared.dataset


@pytest.mark.slow
def test_the_header_of_replaced_weights_is_not_read(
    client: Storage, storage: Storage, bucket: str, weak: str, model_folder: Path, tmp_path: Path
) -> None:
    uri = S3Uri(bucket, "model")
    put_folder(storage, model_folder, uri)
    shard = uri.child("model.safetensors")
    storage.write_bytes(shard, (2).to_bytes(8, "little") + b"{}")
    task = prepare_task(bucket)
    model = find_remote_model(task.base, tmp_path / "m", client, weights=True)
    assert model.read_header("model.safetensors") == (b"{}", 0)
    storage.write_bytes(shard, (3).to_bytes(8, "little") + b"{ }")
    for read in (
        lambda: model.read_header("model.safetensors"),
        lambda: model.fetch(["model.safetensors"], tmp_path / "m"),
    ):
        assert problem_of(read) is StorageProblem.CHANGED


@pytest.mark.parametrize(
    ("tag", "etag", "strong"),
    [
        ('"abc"', "abc", "abc"),
        ("abc", "abc", "abc"),
        ('W/"abc"', "abc", ""),
        ("", "", ""),
        (None, "", ""),
    ],
)
def test_every_form_of_an_etag_is_understood(tag: str | None, etag: str, strong: str) -> None:
    entry = parse_entry("k", {"ETag": tag} if tag is not None else {}, 1)
    assert (entry.etag, entry.strong_etag, entry.version) == (etag, strong, etag)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ObjectEntry("k", 1, "a"), ObjectEntry("k", 1, "a"), True),
        (ObjectEntry("k", 1, "a"), ObjectEntry("k", 1, "b"), False),
        (ObjectEntry("k", 1, "a"), ObjectEntry("k", 2, "a"), False),
        (ObjectEntry("k", 1, "a", "t1"), ObjectEntry("k", 1, "", "t1"), True),
        (ObjectEntry("k", 1, "a", "t1"), ObjectEntry("k", 1, "", "t2"), False),
        (ObjectEntry("k", 1, "", "t1"), ObjectEntry("k", 1, "", "t1"), True),
        (ObjectEntry("k", 1, "", "t1"), ObjectEntry("k", 1, ""), True),
        (ObjectEntry("k", 1, ""), ObjectEntry("k", 2, ""), False),
    ],
)
def test_versions_are_compared_by_what_both_have(
    one: ObjectEntry, other: ObjectEntry, same: bool
) -> None:
    assert one.is_same_as(other) is other.is_same_as(one) is same
