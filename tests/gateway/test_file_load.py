"""Many uploads and downloads at once, and large ones, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from finetune_api.limits import DataLimits
from finetune_api.names import ENV_LOCAL_ROOT, LOCAL_BUCKET
from finetune_gateway.files.bucket_files import UPLOADS_AT_ONCE
from finetune_gateway.wire.ids import new_file_id
from finetune_storage.connect import open_storage
from tests.gateway.files_process import FilesProcess, files_process
from tests.gateway.files_server import HEADERS, ROW, FilesServer
from tests.support.cases import ALL_CASES

pytestmark = pytest.mark.slow

MIB = 2**20
LINE = b'{"prompt": "' + b"p" * 480 + b'", "completion": "c"}\n'


def upload(url: str, content: bytes, name: str = "train.jsonl") -> str:
    """Upload a file; returns its id."""
    fields = [("purpose", (None, "fine-tune")), ("file", (name, content))]
    answer = requests.post(f"{url}/v1/files", headers=HEADERS, files=fields, timeout=120)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def download(url: str, file_id: str) -> bytes:
    answer = requests.get(f"{url}/v1/files/{file_id}/content", headers=HEADERS, timeout=120)
    assert answer.status_code == 200
    return answer.content


def of_size(size: int) -> bytes:
    """JSONL of exactly this size: its last line has spaces at its end."""
    rows = LINE * (size // len(LINE))
    return rows + b" " * (size - len(rows))


def test_twenty_files_arrive_at_once(served: FilesServer) -> None:
    contents = [LINE * (1000 + number) + ROW * 10_000 for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(lambda content: upload(served.url, content), contents))
    assert len(set(ids)) == 20
    for file_id, content in zip(ids, contents, strict=True):
        assert download(served.url, file_id) == content
    assert served.unfinished == []
    assert served.files._places._value == UPLOADS_AT_ONCE


@pytest.mark.slow
def test_a_listing_of_ten_thousand_files_has_all_of_them(served: FilesServer) -> None:
    from moto.s3.models import s3_backends

    start = datetime(2026, 11, 1, tzinfo=UTC)
    ids = [new_file_id(start + timedelta(seconds=number)) for number in range(10_000)]
    store = s3_backends["123456789012"]["aws"]
    for file_id in ids:
        store.put_object(served.bucket, f"gateway/ml/files/{file_id}/fine-tune/a.jsonl", b"x")
    found = served.client().files.list()
    assert [file.id for file in found.data] == ids[::-1]
    assert not found.has_more
    page = served.client().files.list(limit=10, after=ids[5000], order="asc")
    assert [file.id for file in page.data] == ids[5001:5011]


# --- the folder of a laptop ----------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FilesServer]:
    """The endpoints over a folder in place of S3."""
    monkeypatch.setenv(ENV_LOCAL_ROOT, str(tmp_path / "store"))
    with FilesServer(open_storage(), LOCAL_BUCKET) as server:
        yield server


def test_a_folder_serves_as_the_store(local: FilesServer, tmp_path: Path) -> None:
    content = LINE * 40_000  # several parts
    file_id = upload(local.url, content, "../../data.jsonl")
    stored = tmp_path / f"store/gateway/ml/files/{file_id}/fine-tune/data.jsonl"
    assert stored.read_bytes() == content
    assert download(local.url, file_id) == content
    client = local.client()
    done = client.uploads.upload_file_chunked(
        file=stored, mime_type="application/jsonl", purpose="fine-tune", part_size=6 * MIB
    )
    assert done.file is not None
    assert download(local.url, done.file.id) == content
    assert {file.id for file in client.files.list()} == {file_id, done.file.id}
    wrong = requests.post(
        f"{local.url}/v1/files",
        headers=HEADERS,
        files=[("purpose", (None, "fine-tune")), ("file", ("a.jsonl", content + b"[]"))],
        timeout=60,
    )
    assert wrong.status_code == 400
    for file in client.files.list():
        client.files.delete(file.id)
    left = [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert sorted(left) == ["outcome.json", "upload.json"]
    assert local.keys == [
        f"gateway/ml/uploads/{done.id}/outcome.json",
        f"gateway/ml/uploads/{done.id}/upload.json",
    ]


# --- memory --------------------------------------------------------------------------------------


@pytest.fixture
def process(aws: pytest.MonkeyPatch, bucket: str) -> Iterator[FilesProcess]:
    """A gateway in a process of its own, which has uploaded and downloaded something before."""
    with files_process(bucket) as running:
        download(running.url, upload(running.url, LINE * 10))
        yield running


def growth(process: FilesProcess, work: Any) -> int:
    """The bytes by which the peak grows while `work` runs."""
    process.forget_peak()
    before = process.peak
    work()
    return process.peak - before


@pytest.mark.slow
def test_a_large_file_needs_little_memory(process: FilesProcess) -> None:
    """With ALL_CASES=1 the largest file; the memory does not depend on it."""
    content = of_size(DataLimits().max_file_bytes if ALL_CASES else 150 * MIB)
    found: list[str] = []
    grown = growth(process, lambda: found.append(upload(process.url, content)))
    print(f"upload of {len(content) / MIB:.0f} MiB: {grown / MIB:.1f} MiB more")
    assert grown < 64 * MIB
    grown = growth(process, lambda: found.append(str(len(download(process.url, found[0])))))
    print(f"download: {grown / MIB:.1f} MiB more")
    assert grown < 64 * MIB
    assert found[1] == str(len(content))


@pytest.mark.slow
def test_a_file_of_empty_lines_and_one_of_short_ones_need_little_memory(
    process: FilesProcess,
) -> None:
    content = b"{}\n" * 1_000_000 + b"\n" * 4_000_000
    grown = growth(process, lambda: upload(process.url, content))
    print(f"short lines: {grown / MIB:.1f} MiB more")
    assert grown < 64 * MIB


@pytest.mark.slow
def test_an_upload_in_chunks_needs_little_memory(process: FilesProcess) -> None:
    from openai import OpenAI

    content = of_size(80 * MIB)
    client = OpenAI(base_url=f"{process.url}/v1", api_key="sk-ft-anna", max_retries=0)

    def work() -> None:
        done = client.uploads.upload_file_chunked(
            file=content,
            filename="train.jsonl",
            bytes=len(content),
            mime_type="application/jsonl",
            purpose="fine-tune",
            part_size=32 * MIB,
        )
        assert done.file is not None
        assert done.file.bytes == len(content)

    grown = growth(process, work)
    print(f"upload in chunks: {grown / MIB:.1f} MiB more")
    assert grown < 64 * MIB


@pytest.mark.slow
def test_two_hundred_readers_that_stop_need_a_block_each_and_leave_room_for_an_upload(
    process: FilesProcess,
) -> None:
    """The readers do not read, and their connections stay open."""
    file_id = upload(process.url, of_size(20 * MIB))
    answers: list[requests.Response] = []

    def work() -> None:
        for _ in range(200):
            url = f"{process.url}/v1/files/{file_id}/content"
            answers.append(requests.get(url, headers=HEADERS, stream=True, timeout=60))
        time.sleep(5)

    grown = growth(process, work)
    print(f"200 readers: {grown / MIB:.1f} MiB more")
    other = upload(process.url, ROW * 1000)
    assert download(process.url, other) == ROW * 1000
    for answer in answers:
        assert answer.status_code == 200
        answer.close()
    assert grown < 200 * MIB


@pytest.mark.slow
def test_twenty_uploads_at_once_need_the_memory_of_their_parts(process: FilesProcess) -> None:
    content = of_size(20 * MIB)

    def work() -> None:
        with ThreadPoolExecutor(20) as pool:
            assert len(list(pool.map(lambda _: upload(process.url, content), range(20)))) == 20

    grown = growth(process, work)
    print(f"20 uploads of 20 MiB: {grown / MIB:.1f} MiB more")
    assert grown < 320 * MIB
