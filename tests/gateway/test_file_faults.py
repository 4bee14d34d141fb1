"""A store that fails is 503, an upload leaves nothing, and a download never looks complete."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from finetune_api.uris import S3Uri
from finetune_storage.connect import open_storage
from finetune_storage.multipart import UnfinishedUploads
from finetune_storage.s3 import Storage
from tests.data.conftest import client, proxy, set_environment
from tests.gateway.files_server import HEADERS, ROW, FilesServer
from tests.gateway.test_files import error_of
from tests.support.proxy import Answer, FaultyProxy, Rule, Seen, let_pass, s3_error

pytestmark = pytest.mark.slow

__all__ = ["client", "proxy"]

LARGE = ROW * (20_000_000 // len(ROW))


@pytest.fixture
def faulty(client: Storage, bucket: str, proxy: FaultyProxy) -> Iterator[FilesServer]:
    """A gateway whose requests to the store go through the proxy."""
    with FilesServer(client, bucket) as server:
        yield server
    proxy.rule = let_pass


def failing(*methods: str, after: int = 0, part: str = "/gateway/", code: int = 500) -> Rule:
    """Answer such requests with an error, but for the first ones."""
    seen: list[Seen] = []

    def rule(request: Seen) -> Answer | None:
        if request.method in methods and part in request.path:
            seen.append(request)
            if len(seen) > after:
                return s3_error(code, "InternalError")
        return None

    return rule


def upload(server: FilesServer, content: bytes = ROW) -> requests.Response:
    fields = [("purpose", (None, "fine-tune")), ("file", ("a.jsonl", content))]
    return requests.post(f"{server.url}/v1/files", headers=HEADERS, files=fields, timeout=60)


def get(server: FilesServer, path: str) -> requests.Response:
    return requests.get(f"{server.url}/v1/files{path}", headers=HEADERS, timeout=60)


def assert_unavailable(answer: requests.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    error = error_of(answer)
    assert error["code"] == "service_unavailable"
    assert "127.0.0.1" not in error["message"]
    assert "Secret" not in error["message"]


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_an_upload_that_the_store_refuses_leaves_nothing(
    faulty: FilesServer, proxy: FaultyProxy, storage: Storage, bucket: str, parts: int
) -> None:
    proxy.rule = failing("PUT", after=parts)
    assert_unavailable(upload(faulty, LARGE))
    proxy.rule = let_pass
    assert storage.list(S3Uri(bucket, "")) == []
    assert UnfinishedUploads(storage._client, S3Uri(bucket, "")).find() == []
    assert upload(faulty, LARGE).status_code == 200


def test_an_upload_whose_parts_cannot_be_deleted_is_still_answered(
    faulty: FilesServer, proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.rule = failing("PUT", "DELETE", after=1)
    with caplog.at_level(logging.WARNING):
        assert_unavailable(upload(faulty, LARGE))
    assert "an unfinished upload remains at s3://" in caplog.text


def test_every_endpoint_answers_when_the_store_does_not(storage: Storage, bucket: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, "http://127.0.0.1:9")
        away = open_storage()
    with FilesServer(away, bucket) as server:
        file_id = "file-" + "0" * 26
        assert_unavailable(upload(server))
        for path in ("", f"/{file_id}", f"/{file_id}/content"):
            assert_unavailable(get(server, path))
        assert get(server, "/data%2Ftrain.jsonl").status_code == 404
        begun = {"bytes": 1, "filename": "a", "purpose": "fine-tune"}
        for path, body in (("", begun), (f"/upload_{'0' * 26}/cancel", {})):
            url = f"{server.url}/v1/uploads{path}"
            assert_unavailable(requests.post(url, headers=HEADERS, json=body, timeout=60))


def test_a_missing_bucket_is_for_the_administrator(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    with FilesServer(storage, "no-such-bucket") as server, caplog.at_level(logging.ERROR):
        answer = get(server, "")
        assert_unavailable(answer)
        assert "Its log has the cause" in error_of(answer)["message"]
    assert "there is no bucket" in caplog.text


def test_a_download_that_breaks_is_not_a_complete_one(
    faulty: FilesServer, proxy: FaultyProxy
) -> None:
    file_id = upload(faulty, LARGE).json()["id"]
    proxy.rule = failing("GET", after=5, part=file_id)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        get(faulty, f"/{file_id}/content")
    proxy.rule = let_pass
    assert get(faulty, f"/{file_id}/content").content == LARGE


def test_a_download_never_mixes_two_versions(served: FilesServer) -> None:
    made = served.client().files.create(file=("a.jsonl", LARGE), purpose="fine-tune")
    uri = S3Uri(served.bucket, served.keys[0])
    with requests.get(
        f"{served.url}/v1/files/{made.id}/content", headers=HEADERS, stream=True, timeout=60
    ) as answer:
        blocks = answer.iter_content(2**16)
        next(blocks)
        served.storage.write_bytes(uri, LARGE[::-1])
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(blocks)


def test_results_that_a_training_replaces_are_read_from_one_version(
    served: FilesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"model": "ada", "trainingFile": "s3://elsewhere/train.jsonl"}
    made = served.run(served.cluster.add("finetunes", "a", spec))
    uri = S3Uri(served.bucket, f"out/ml/a-{made['metadata']['uid'][:8]}/results.csv")
    served.storage.write_bytes(uri, b"step\n1\n")
    head, versions = served.storage.head, [b"step\n1\n2\n", b"step\n1\n2\n3\n"]

    def replaced_after(target: S3Uri) -> Any:
        entry = head(target)
        if versions and target == uri:
            served.storage.write_bytes(uri, versions.pop(0))
        return entry

    monkeypatch.setattr(served.storage, "head", replaced_after)
    found = served.client().files.retrieve("file-results-a")
    assert found.bytes == 7
    assert served.client().files.content("file-results-a").content == b"step\n1\n2\n3\n"
