"""Uploads to a real S3 server: once for each content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from finetune_cli.manifests.uploads import find_file, is_local, plan_upload, send_upload
from finetune_cli.terminal.configuration import save_upload_prefix, settings_file, upload_prefix
from finetune_cli.terminal.errors import CommandError
from finetune_storage.s3 import Storage

ROW = b'{"prompt": "a", "completion": "b"}\n'


def silent(done: int, total: int) -> None:
    """No bar."""


def test_a_content_is_uploaded_once_under_any_name(
    tmp_path: Path, storage: Storage, bucket: str
) -> None:
    (tmp_path / "train.jsonl").write_bytes(ROW)
    (tmp_path / "copy.jsonl").write_bytes(ROW)
    (tmp_path / "train.csv").write_bytes(ROW)
    prefix = f"s3://{bucket}/data"
    first = plan_upload(tmp_path / "train.jsonl", prefix, storage, silent)
    assert not first.exists
    assert str(first.uri) == f"{prefix}/{hashlib.sha256(ROW).hexdigest()[:32]}/train.jsonl"
    send_upload(first, storage, silent)
    assert storage.read_bytes(first.uri) == ROW
    again = plan_upload(tmp_path / "copy.jsonl", prefix, storage, silent)
    assert (again.exists, again.uri) == (True, first.uri)
    # its ending says what it is, so the same bytes under another ending are another file
    assert not plan_upload(tmp_path / "train.csv", prefix, storage, silent).exists
    assert not plan_upload(tmp_path / "train.jsonl", prefix, storage, silent, reuse=False).exists


def test_a_file_that_changes_during_the_upload_leaves_no_object(
    tmp_path: Path, storage: Storage, bucket: str
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(ROW)
    upload = plan_upload(path, f"s3://{bucket}", storage, silent)

    def writes_more(done: int, total: int) -> None:
        path.write_bytes(ROW + ROW)

    with pytest.raises(CommandError, match="changed during the upload"):
        send_upload(upload, storage, writes_more)
    assert not storage.exists(upload.uri)


def test_a_file_name_cannot_break_the_key(tmp_path: Path, storage: Storage, bucket: str) -> None:
    path = tmp_path / "a\\b\nc ü.jsonl"
    path.write_bytes(ROW)
    upload = plan_upload(path, f"s3://{bucket}/x", storage, silent)
    assert upload.uri.key.endswith("/a-b-c ü.jsonl")
    send_upload(upload, storage, silent)
    assert storage.exists(upload.uri)


@pytest.mark.parametrize(
    ("address", "words"),
    [("nothing.jsonl", "there is no file"), ("folder", "is not a file"), ("empty", "is empty")],
)
def test_what_is_no_file_with_content_is_said_first(
    tmp_path: Path, address: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    with pytest.raises(CommandError, match=words):
        find_file(address, tmp_path)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [("a.jsonl", True), ("s3://a/b", False), ("https://a/b", False), ("", False), (None, False)],
)
def test_only_a_path_is_local(address: object, wanted: bool) -> None:
    assert is_local(address) is wanted


def test_the_prefix_is_kept_and_the_environment_wins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upload_prefix() is None
    assert save_upload_prefix("s3://acme/data")
    assert not save_upload_prefix("s3://acme/data")
    assert upload_prefix() == "s3://acme/data"
    monkeypatch.setenv("FINETUNE_UPLOAD_TO", "s3://other")
    assert upload_prefix() == "s3://other"
    monkeypatch.delenv("FINETUNE_UPLOAD_TO")
    settings_file().write_text("other: kept\n")
    save_upload_prefix("s3://acme/new")
    assert "other: kept" in settings_file().read_text()
    for broken in ("[", "- a", "uploadTo: 3"):
        settings_file().write_text(broken)
        with pytest.raises(CommandError, match=str(settings_file())):
            upload_prefix()
