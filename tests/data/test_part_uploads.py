"""Objects that are written in parts appear when they are complete, in S3 and in a folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from finetune_api.names import ENV_LOCAL_ROOT, LOCAL_BUCKET
from finetune_api.uris import S3Uri
from finetune_storage.client import s3_client
from finetune_storage.connect import open_storage
from finetune_storage.errors import StorageError
from finetune_storage.messages import StorageProblem
from finetune_storage.multipart import LEAST_PART_BYTES, UnfinishedUploads
from finetune_storage.s3 import Storage
from tests.data.stub_server import Answer, Request, StubServer, s3_error
from tests.support.proxy import Cut, FaultyProxy, Seen, let_pass

LARGE = bytes(range(256)) * (LEAST_PART_BYTES // 256)


@pytest.fixture(params=["S3", "a folder"])
def store(
    request: pytest.FixtureRequest,
    storage: Storage,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Storage, S3Uri]:
    """A storage, and a prefix in it."""
    if request.param == "S3":
        return storage, S3Uri(bucket, "files")
    monkeypatch.setenv(ENV_LOCAL_ROOT, str(tmp_path / "root"))
    return open_storage(), S3Uri(LOCAL_BUCKET, "files")


def test_the_object_appears_with_all_of_its_parts(store: tuple[Storage, S3Uri]) -> None:
    storage, prefix = store
    storage.write_bytes(prefix.child("source"), LARGE[::-1])
    upload = storage.upload_parts(prefix.child("a/b"))
    upload.add(LARGE)
    upload.copy(prefix.child("source"))
    upload.add(b"the end")
    assert [entry.key for entry in storage.list(prefix)] == ["files/source"]
    upload.complete()
    assert storage.read_bytes(prefix.child("a/b")) == LARGE + LARGE[::-1] + b"the end"
    upload.abort()
    assert storage.exists(prefix.child("a/b"))


def test_an_aborted_upload_leaves_nothing_and_takes_no_part(
    store: tuple[Storage, S3Uri], tmp_path: Path
) -> None:
    storage, prefix = store
    upload = storage.upload_parts(prefix.child("a"))
    upload.add(LARGE)
    upload.abort()
    upload.abort()
    with pytest.raises(AssertionError):
        upload.add(b"late")
    storage.upload_parts(prefix.child("b")).abort()  # before its first part
    assert storage.list(prefix) == []
    if prefix.bucket == LOCAL_BUCKET:
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    else:
        assert UnfinishedUploads(storage._client, prefix).find() == []


def test_an_abort_waits_for_the_part_that_another_thread_adds(
    client: Storage, storage: Storage, proxy: FaultyProxy, bucket: str
) -> None:
    from tests.support.proxy import Hold

    released = Event()
    proxy.rule = lambda seen: Hold(released) if seen.method == "PUT" else None
    upload = client.upload_parts(S3Uri(bucket, "a"))
    try:
        with ThreadPoolExecutor(2) as pool:
            adding = pool.submit(upload.add, b"x")
            while not UnfinishedUploads(storage._client, S3Uri(bucket, "")).find():
                pass
            aborting = pool.submit(upload.abort)
            assert not aborting.done()
            released.set()
            adding.result(10)
            aborting.result(10)
    finally:
        released.set()
        proxy.rule = let_pass
    assert UnfinishedUploads(storage._client, S3Uri(bucket, "")).find() == []


def test_an_upload_whose_last_answer_is_lost_is_complete(
    client: Storage, storage: Storage, proxy: FaultyProxy, bucket: str
) -> None:
    def lose(seen: Seen) -> Cut | None:
        first = seen.method == "POST" and not lost
        if first and len(proxy.writes) == writes + 3:  # begin, part, complete
            lost.append(seen)
            return Cut()
        return None

    lost: list[Seen] = []
    writes = len(proxy.writes)
    proxy.rule = lose
    try:
        upload = client.upload_parts(S3Uri(bucket, "a"))
        upload.add(b"x")
        upload.complete()
    finally:
        proxy.rule = let_pass
    assert lost
    assert storage.read_bytes(S3Uri(bucket, "a")) == b"x"


@pytest.mark.parametrize("exists", [True, False])
def test_an_upload_that_the_store_no_longer_knows_counts_by_its_object(
    stub: StubServer, stub_storage: Storage, exists: bool
) -> None:
    """It is complete if the first answer was lost, and another program can have aborted it."""

    def answer(request: Request) -> Answer:
        if request.command == "HEAD":
            return Answer(200 if exists or request.path == "/acme" else 404, b"x")
        if request.path == "/acme/a?uploadId=u1":
            return s3_error("NoSuchUpload", 404)
        return Answer(200, b"<R><UploadId>u1</UploadId></R>", {"ETag": '"e"'})

    stub.answer = answer
    upload = stub_storage.upload_parts(S3Uri("acme", "a"))
    upload.add(b"x")
    if exists:
        upload.complete()
    else:
        with pytest.raises(StorageError) as caught:
            upload.complete()
        assert caught.value.problem is StorageProblem.OBJECT_MISSING
    upload.abort()  # which the store does not know, either


def test_a_store_that_refuses_a_part_is_a_storage_error(
    stub: StubServer, stub_storage: Storage
) -> None:
    stub.answer = lambda _: s3_error("AccessDenied", 403)
    upload = stub_storage.upload_parts(S3Uri("acme", "a"))
    with pytest.raises(StorageError) as caught:
        upload.add(b"x")
    assert caught.value.problem is StorageProblem.ACCESS_DENIED
    upload.abort()


def test_the_checksums_of_aws_are_part_of_the_upload(
    aws: pytest.MonkeyPatch, stub: StubServer
) -> None:
    """A client without an endpoint of its own, as on AWS, whose requests the stub answers."""
    answers = {
        "POST /acme/a?uploads": b"<R><UploadId>u1</UploadId></R>",
        "POST /acme/a?uploadId=u1": b"<R><ETag>x</ETag></R>",
    }
    bodies: dict[str, str] = {}
    sent: list[str | None] = []

    def answer(request: Request) -> Answer:
        line = f"{request.command} {request.path}"
        sent.append(request.headers.get("x-amz-checksum-algorithm"))
        bodies[line] = str(request.headers)
        headers = {"ETag": '"e"', "x-amz-checksum-crc32": "AAAAAA=="}
        return Answer(200, answers.get(line, b""), headers)

    stub.answer = answer
    aws.delenv("AWS_ENDPOINT_URL")
    client = s3_client()
    assert client.meta.config.request_checksum_calculation == "when_supported"  # type: ignore[attr-defined]
    aws.setenv("AWS_ENDPOINT_URL", stub.url)
    own = s3_client()
    own.meta.config.request_checksum_calculation = "when_supported"  # type: ignore[attr-defined]
    upload = Storage(own).upload_parts(S3Uri("acme", "a"))
    upload.add(b"x")
    upload.complete()
    assert sent[0] == "CRC32"
    assert upload._parts == [{"ETag": '"e"', "PartNumber": 1, "ChecksumCRC32": "AAAAAA=="}]  # type: ignore[attr-defined]


def test_a_listing_is_requested_page_by_page(stub: StubServer, stub_storage: Storage) -> None:
    def page(request: Request) -> Answer:
        number = len(stub.requests)
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>"
        entry = f"<Contents><Key>p/{number}</Key><Size>1</Size><ETag>e</ETag></Contents>"
        text = f"<ListBucketResult>{more}t{number}</NextContinuationToken>{entry}"
        return Answer(200, f"{text}</ListBucketResult>".encode())

    stub.answer = page
    pages = stub_storage.pages(S3Uri("acme", "p"))
    assert stub.requests == []
    assert [entry.key for _ in range(3) for entry in next(pages)] == ["p/1", "p/2", "p/3"]
    assert len(stub.requests) == 3
    stub.answer = lambda _: s3_error("SlowDown", 503)
    with pytest.raises(StorageError):
        next(pages)


def test_the_pages_of_a_listing_are_the_listing(store: tuple[Storage, S3Uri]) -> None:
    storage, prefix = store
    for number in range(5):
        storage.write_bytes(prefix.child(str(number)), b"x")
    found = [entry for page in storage.pages(prefix) for entry in page]
    assert found == storage.list(prefix)
    assert len(found) == 5
