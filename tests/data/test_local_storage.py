"""A folder behaves like a bucket, and every other address is in S3."""

import os
from pathlib import Path

import pytest

from finetune_api.names import ENV_LOCAL_ROOT, LOCAL_BUCKET, Reason
from finetune_api.uris import S3Uri
from finetune_storage.connect import open_storage
from finetune_storage.errors import AlreadyExists, StorageError
from finetune_storage.local import LocalStorage
from finetune_storage.s3 import Storage


def at(key: str) -> S3Uri:
    return S3Uri.parse(f"s3://{LOCAL_BUCKET}/{key}")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv(ENV_LOCAL_ROOT, str(tmp_path / "root"))
    found = open_storage()
    assert isinstance(found, LocalStorage)
    return found


def test_written_objects_can_be_read_listed_and_deleted(local: Storage, tmp_path: Path) -> None:
    local.write_bytes(at("a/b/one"), b"1")
    local.write_bytes(at("a/two"), b"22")
    local.write_bytes(at("a/two"), b"222")
    assert local.read_bytes(at("a/two")) == b"222"
    assert [(entry.key, entry.size) for entry in local.list(at("a"))] == [
        ("a/b/one", 1),
        ("a/two", 3),
    ]
    assert local.exists(at("a/two"))
    assert local.head(at("a/two")).etag != local.head(at("a/b/one")).etag
    local.delete(at("a/b/one"))
    local.delete(at("a/b/one"))
    assert not (tmp_path / "root/a/b").exists()
    assert [entry.key for entry in local.list(at("a"))] == ["a/two"]
    assert local.list(at("nowhere")) == []


def test_a_range_of_a_file_is_read(local: Storage) -> None:
    local.write_bytes(at("numbers"), b"0123456789")
    assert local.read_range(at("numbers"), 3, 4) == b"3456"
    assert local.read_range(at("numbers"), 8, 4) == b"89"
    with pytest.raises(StorageError):
        local.read_range(at("nothing"), 0, 1)


def test_a_write_only_if_absent_succeeds_once(local: Storage) -> None:
    local.write_bytes(at("manifest.json"), b"first", only_if_absent=True)
    with pytest.raises(AlreadyExists):
        local.write_bytes(at("manifest.json"), b"second", only_if_absent=True)
    assert local.read_bytes(at("manifest.json")) == b"first"
    assert len(local.list(at(""))) == 1  # no half-written file is left


def test_files_are_transferred_completely_with_progress(local: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    told: list[tuple[int, int]] = []
    local.upload_file(source, at("in/deep/file"), lambda *count: told.append(count))
    source.unlink()
    local.download_file(at("in/deep/file"), tmp_path / "copy")
    local.download_file(at("in/deep/file"), tmp_path / "copy")  # replaces itself
    assert (tmp_path / "copy").read_bytes() == b"x" * 1000
    names = local.download_prefix(at("in"), tmp_path / "all", progress=lambda *c: told.append(c))
    assert names == ["deep/file"]
    assert (tmp_path / "all/deep/file").stat().st_size == 1000
    assert told == [(1000, 1000), (1000, 1000)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "copy", "root"]


def test_a_file_of_another_file_system_is_copied(
    local: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").write_bytes(b"data")
    local.upload_file(tmp_path / "source", at("key"))
    assert local.read_bytes(at("key")) == b"data"


@pytest.mark.parametrize("action", ["read_bytes", "head", "open_stream"])
def test_a_missing_file_is_named(local: Storage, action: str) -> None:
    with pytest.raises(StorageError, match=r"there is no file .*nothing") as caught:
        getattr(local, action)(at("nothing"))
    assert caught.value.failure.code == Reason.DATA_NOT_FOUND
    assert not local.exists(at("nothing"))


def test_a_folder_is_no_object(local: Storage) -> None:
    local.write_bytes(at("folder/file"), b"")
    with pytest.raises(StorageError, match="it is a folder"):
        local.head(at("folder"))


def test_a_stream_reads_to_the_end(local: Storage) -> None:
    local.write_bytes(at("rows"), b"one\ntwo\n")
    with local.open_stream(at("rows")) as stream:
        assert stream.read() == b"one\ntwo\n"


def test_every_other_bucket_is_s3(
    local: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    elsewhere = S3Uri("elsewhere", "key")
    calls = [
        lambda: local.read_bytes(elsewhere),
        lambda: local.head(elsewhere),
        lambda: local.list(elsewhere),
        lambda: local.download_file(elsewhere, tmp_path / "x"),
        lambda: local.download_prefix(elsewhere, tmp_path / "y"),
        lambda: local.write_bytes(elsewhere, b""),
        lambda: local.delete(elsewhere),
    ]
    for call in calls:
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.failure.code == Reason.S3_UNAVAILABLE
