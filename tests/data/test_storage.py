"""The S3 client with moto, and with servers that refuse, break, or do not answer."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from finetune_api.names import EXIT_UNAVAILABLE, EXIT_USER, Reason
from finetune_api.uris import S3Uri
from finetune_data.termination import exit_code
from finetune_storage.connect import open_storage
from finetune_storage.errors import AlreadyExists, StorageError
from finetune_storage.s3 import Storage
from tests.data.stub_server import Answer, Request, StubServer, s3_error


def failure_of(call: object, *arguments: object, **named: object):
    with pytest.raises(StorageError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    failure = caught.value.failure
    assert "very-secret" not in failure.message
    assert "AKIA" not in failure.message
    return failure


def test_written_bytes_can_be_read(storage: Storage, bucket: str) -> None:
    uri = S3Uri(bucket, "a/b")
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"two")
    assert storage.read_bytes(uri) == b"two"
    assert storage.head(uri).size == 3
    assert storage.exists(uri)
    assert not storage.exists(S3Uri(bucket, "a"))


def test_a_write_only_if_absent_never_replaces(storage: Storage, bucket: str) -> None:
    uri = S3Uri(bucket, "manifest.json")
    storage.write_bytes(uri, b"first", only_if_absent=True)
    with pytest.raises(AlreadyExists):
        storage.write_bytes(uri, b"second", only_if_absent=True)
    assert storage.read_bytes(uri) == b"first"


def test_a_deleted_object_is_gone_and_can_be_deleted_again(storage: Storage, bucket: str) -> None:
    uri = S3Uri(bucket, "old")
    storage.write_bytes(uri, b"x")
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_a_retried_write_of_our_own_is_not_a_conflict(
    stub: StubServer, stub_storage: Storage
) -> None:
    """The store accepted the write, its answer got lost, and the client tried again."""
    puts: list[str] = []

    def answer(request: Request) -> Answer:
        if request.command == "GET":
            return Answer(200, b"mine", {"ETag": '"e"'})
        if request.command == "HEAD":
            return Answer(200 if puts or request.path == "/acme" else 404, b"mine")
        puts.append(request.path)
        return s3_error("InternalError", 500) if len(puts) == 1 else s3_error("Precondition", 412)

    stub.answer = answer
    stub_storage.write_bytes(S3Uri("acme", "m"), b"mine", only_if_absent=True)
    puts.clear()
    stub.answer = lambda it: Answer(200) if it.command == "HEAD" else answer(it)
    with pytest.raises(AlreadyExists):
        stub_storage.write_bytes(S3Uri("acme", "m"), b"other", only_if_absent=True)


def test_a_listing_stays_below_its_prefix(storage: Storage, bucket: str) -> None:
    for key in ("model/a", "model/b/c", "model2/d", "model"):
        storage.write_bytes(S3Uri(bucket, key), b"12345")
    listed = storage.list(S3Uri(bucket, "model"))
    assert [(entry.key, entry.size) for entry in listed] == [("model/a", 5), ("model/b/c", 5)]
    assert all(entry.etag and '"' not in entry.etag for entry in listed)
    assert len(storage.list(S3Uri(bucket, ""))) == 4


def test_uploads_and_downloads_report_progress(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 4096
    (tmp_path / "up").write_bytes(data)
    seen: list[tuple[int, int]] = []
    storage.upload_file(tmp_path / "up", S3Uri(bucket, "big"))
    storage.download_file(
        S3Uri(bucket, "big"), tmp_path / "down" / "file", lambda *it: seen.append(it)
    )
    assert (tmp_path / "down" / "file").read_bytes() == data
    assert seen[-1] == (len(data), len(data))


def test_a_range_of_an_object_is_read(storage: Storage, bucket: str) -> None:
    uri = S3Uri(bucket, "numbers")
    storage.write_bytes(uri, b"0123456789")
    assert storage.read_range(uri, 3, 4) == b"3456"
    assert storage.read_range(uri, 8, 4) == b"89"
    assert storage.read_range(uri, 5, 0) == b""
    assert failure_of(storage.read_range, S3Uri(bucket, "no"), 0, 1).code == Reason.DATA_NOT_FOUND


def test_a_range_is_read_again_after_a_broken_connection(
    stub: StubServer, stub_storage: Storage
) -> None:
    cuts: list[int | None] = [2, 0, None]
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.headers["Range"])
        start = int(asked[-1].removeprefix("bytes=").partition("-")[0])
        headers = {"Content-Range": f"bytes {start}-10/20", "ETag": '"e"'}
        return Answer(206, b"part"[start - 7 :], headers, cut=cuts.pop(0) if cuts else 0)

    stub.answer = answer
    assert stub_storage.read_range(S3Uri("acme", "x"), 7, 4) == b"part"
    assert asked == ["bytes=7-10", "bytes=9-10", "bytes=9-10"]
    failure = failure_of(stub_storage.read_range, S3Uri("acme", "x"), 7, 4)
    assert failure.code == Reason.S3_UNAVAILABLE


def test_the_chosen_files_of_a_prefix_are_downloaded(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    for key in ("m/config.json", "m/sub/config.json", "m/model.bin", "m/empty/"):
        storage.write_bytes(S3Uri(bucket, key), b"" if key.endswith("/") else key.encode())
    seen: list[tuple[int, int]] = []
    uri = S3Uri(bucket, "m")
    top = storage.download_prefix(uri, tmp_path / "a", ["*.json"], lambda *it: seen.append(it))
    assert top == ["config.json"]
    assert seen[-1][0] == seen[-1][1] == len("m/config.json")
    assert storage.download_prefix(uri, tmp_path / "b") == [
        "config.json",
        "model.bin",
        "sub/config.json",
    ]
    assert (tmp_path / "b/sub/config.json").read_bytes() == b"m/sub/config.json"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "key",
    ["../evil", "a/../../evil", "/evil", "a//evil", "./evil", "a\\..\\evil", "evil\n", "a/.."],
)
def test_a_hostile_key_writes_nothing(
    storage: Storage, bucket: str, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune_storage.versions import ObjectEntry

    entries = [ObjectEntry("m/good", 4, "e"), ObjectEntry(f"m/{key}", 4, "e")]
    monkeypatch.setattr(storage, "list", lambda _: entries)  # not every server stores such keys
    failure = failure_of(storage.download_prefix, S3Uri(bucket, "m"), tmp_path / "in")
    assert failure.code == Reason.INVALID_DATA
    assert not (tmp_path / "in").exists()


def test_a_key_through_a_link_or_through_a_file_is_refused(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    storage.write_bytes(S3Uri(bucket, "m/link/x"), b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    failure_of(storage.download_prefix, S3Uri(bucket, "m"), tmp_path / "in")
    assert not (tmp_path / "x").exists()
    storage.write_bytes(S3Uri(bucket, "m/link"), b"a file, and a folder too")
    failure = failure_of(storage.download_prefix, S3Uri(bucket, "m"), tmp_path / "other")
    assert "both" in failure.message


def test_a_missing_key_and_a_missing_bucket_are_different_errors(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    key, elsewhere = S3Uri(bucket, "no.jsonl"), S3Uri("no-such-bucket", "no.jsonl")
    calls = (
        storage.head,
        storage.read_bytes,
        lambda uri: storage.download_file(uri, tmp_path / "file"),
    )
    for call in calls:
        missing = failure_of(call, key)
        assert missing.code == Reason.DATA_NOT_FOUND
        assert str(key) in missing.message
        assert storage.endpoint in missing.message
        gone = failure_of(call, elsewhere)
        assert gone.code == Reason.BUCKET_NOT_FOUND
        assert "'no-such-bucket'" in gone.message
    for call in (storage.list, storage.exists, lambda uri: storage.write_bytes(uri, b"")):
        assert failure_of(call, elsewhere).code == Reason.BUCKET_NOT_FOUND


@pytest.mark.parametrize(
    ("code", "what_to_do"),
    [
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", "AWS_SESSION_TOKEN"),
        ("RequestTimeTooSkewed", "clock"),
        ("AccessDenied", "permission"),
    ],
)
def test_refused_credentials_name_the_setting_to_fix(
    stub: StubServer, stub_storage: Storage, code: str, what_to_do: str
) -> None:
    """The answer to a HEAD request has no body, so a second request finds the reason."""

    def answer(request: Request) -> Answer:
        return Answer(403) if request.command == "HEAD" else s3_error(code, 403)

    stub.answer = answer
    storage = stub_storage
    for call in (storage.head, storage.read_bytes, storage.list):
        failure = failure_of(call, S3Uri("acme", "train.jsonl"))
        assert failure.code == Reason.S3_ACCESS_DENIED
        assert exit_code(failure) == EXIT_USER
        assert code in failure.message
        assert what_to_do in failure.message
        assert "s3://acme/train.jsonl" in failure.message
        assert stub.url in failure.message
    failure = failure_of(storage.write_bytes, S3Uri("acme", "x"), b"", only_if_absent=True)
    assert failure.code == Reason.S3_ACCESS_DENIED


def test_no_credentials_at_all_are_a_sentence(aws: pytest.MonkeyPatch) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    failure = failure_of(open_storage().head, S3Uri("acme", "train.jsonl"))
    assert failure.code == Reason.S3_ACCESS_DENIED
    assert "finetune-s3" in failure.message


@pytest.mark.parametrize("endpoint", ["minio:9000/x y", "not a url", "http://["])
def test_an_endpoint_that_is_not_a_url_is_an_invalid_spec(
    aws: pytest.MonkeyPatch, endpoint: str
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", endpoint)
    failure = failure_of(open_storage)
    assert failure.code == Reason.INVALID_SPEC
    assert "AWS_ENDPOINT_URL" in failure.message


def test_a_password_in_the_endpoint_is_not_shown(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://user:very-secret@127.0.0.1:9")
    assert open_storage().endpoint == "http://127.0.0.1:9"


def test_an_endpoint_without_a_server_fails_soon(aws: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    began = time.monotonic()
    failure = failure_of(open_storage().head, S3Uri("acme", "train.jsonl"))
    assert time.monotonic() - began < 5
    assert failure.code == Reason.S3_UNAVAILABLE
    assert exit_code(failure) == EXIT_UNAVAILABLE
    assert f"127.0.0.1:{port}" in failure.message


def test_an_unhealthy_store_is_retried_and_then_unavailable(
    stub: StubServer, stub_storage: Storage
) -> None:
    stub.answer = lambda _: s3_error("SlowDown", 503)
    failure = failure_of(stub_storage.read_bytes, S3Uri("acme", "x"))
    assert failure.code == Reason.S3_UNAVAILABLE
    assert len(stub.requests) == 2


def test_nothing_waits_forever(aws: pytest.MonkeyPatch) -> None:
    config = open_storage()._client.meta.config
    assert config.connect_timeout == 5
    assert config.read_timeout == 60
    aws.delenv("AWS_MAX_ATTEMPTS")
    retries = open_storage()._client.meta.config.retries
    assert retries == {"mode": "standard", "total_max_attempts": 5}


def test_a_stream_resumes_where_its_connection_broke(
    stub: StubServer, stub_storage: Storage
) -> None:
    data = bytes(range(256)) * 1000

    def answer(request: Request) -> Answer:
        start = 0
        if ranged := request.headers.get("Range"):
            start = int(ranged.removeprefix("bytes=").removesuffix("-"))
            assert request.headers["If-Match"] == '"etag"'
        rest = data[start:]
        cut = None if len(rest) < 60_000 else 50_000
        return Answer(206 if ranged else 200, rest, {"ETag": '"etag"'}, cut)

    stub.answer = answer
    with stub_storage.open_stream(S3Uri("acme", "x")) as stream:
        assert (stream.entry.size, stream.entry.etag) == (len(data), "etag")
        assert stream.read() == data
    assert len(stub.requests) > 3


def test_an_object_that_changes_while_it_is_read_is_not_a_mixture(
    stub: StubServer, stub_storage: Storage
) -> None:
    def answer(request: Request) -> Answer:
        if request.headers.get("Range"):
            return s3_error("PreconditionFailed", 412)
        return Answer(200, b"x" * 1000, {"ETag": '"e"'}, cut=10)

    stub.answer = answer
    failure = failure_of(stub_storage.read_bytes, S3Uri("acme", "x"))
    assert failure.code == Reason.S3_UNAVAILABLE
    assert "changed" in failure.message


def test_a_stream_that_always_breaks_at_the_same_byte_ends(
    stub: StubServer, stub_storage: Storage
) -> None:
    stub.answer = lambda _: Answer(200, b"x" * 1000, {"ETag": '"e"'}, cut=0)
    failure = failure_of(stub_storage.read_bytes, S3Uri("acme", "x"))
    assert failure.code == Reason.S3_UNAVAILABLE


def test_custom_stores_are_addressed_by_path(storage: Storage) -> None:
    url = storage._client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "/b/k" in url
