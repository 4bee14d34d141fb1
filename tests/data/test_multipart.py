"""Uploads in parts of killed processes are aborted, and those of living ones never."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.uris import S3Uri
from finetune_storage import multipart
from finetune_storage.multipart import UnfinishedUpload, UnfinishedUploads
from finetune_storage.s3 import Storage
from tests.data.stub_server import StubServer, s3_error

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def begin(storage: Storage, bucket: str, key: str, *, parts: int = 1) -> str:
    client = storage._client
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    for number in range(1, parts + 1):
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=b"x")
    return upload


def keys(storage: Storage, bucket: str) -> list[str]:
    uploads = UnfinishedUploads(storage._client, S3Uri(bucket, ""))
    return sorted(upload.key for upload in uploads.find())


def test_the_dead_uploads_below_a_prefix_are_aborted(
    storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("run/a", "run/deep/b", "run/living", "run-2/a", "other"):
        begin(storage, bucket, key)
    count = storage.abort_uploads(
        S3Uri(bucket, "run"), lambda upload: not upload.key.endswith("living")
    )
    assert count == 2
    assert keys(storage, bucket) == ["other", "run-2/a", "run/living"]
    assert f"aborted unfinished uploads below s3://{bucket}/run: 2" in capsys.readouterr().out


def test_without_an_owner_only_a_day_without_a_part_shows_that_an_upload_is_dead(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(storage, bucket, "shared/a")
    assert storage.abort_uploads(S3Uri(bucket, "shared")) == 0
    monkeypatch.setattr(multipart, "QUIET", -DAY)  # every part is old
    assert storage.abort_uploads(S3Uri(bucket, "shared")) == 1
    assert keys(storage, bucket) == []


@pytest.mark.parametrize(
    ("initiated", "parts", "quiet"),
    [
        (NOW - 2 * DAY, [], True),
        (NOW - DAY / 2, [], False),
        (NOW - 9 * DAY, [NOW - 8 * DAY, NOW - 2 * DAY], True),
        (NOW - 9 * DAY, [NOW - 8 * DAY, NOW - DAY / 2], False),
        (NOW - 9 * DAY, [None], False),
        (None, [], False),
    ],
)
def test_an_upload_with_a_new_part_is_alive(
    initiated: datetime | None, parts: list[datetime | None], quiet: bool
) -> None:
    class Client:
        def get_paginator(self, _: str) -> Client:
            return self

        def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
            yield {"Parts": [{"LastModified": part} for part in parts]}

    uploads = UnfinishedUploads(Client(), S3Uri("b", "k"))  # type: ignore[arg-type]
    assert uploads.is_quiet(UnfinishedUpload("k/a", "1", initiated, NOW)) is quiet
    assert not uploads.is_quiet(UnfinishedUpload("k/a", "1", initiated, None))


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("NotImplemented", 501), ("MethodNotAllowed", 405)]
)
def test_a_missing_permission_is_one_warning(
    stub: StubServer,
    stub_storage: Storage,
    code: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub.answer = lambda _: s3_error(code, status)
    stub_storage._has_warned = False
    for _ in range(3):
        assert stub_storage.abort_uploads(S3Uri("acme", "run")) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: unfinished uploads of killed pods below s3://acme/run")
    assert code in line
    assert "s3:ListBucketMultipartUploads" in line
    assert "lifecycle rule" in line


def test_an_upload_that_another_process_aborts_first_is_no_error(
    storage: Storage, bucket: str
) -> None:
    upload = begin(storage, bucket, "run/a")

    def is_dead(_: UnfinishedUpload) -> bool:
        storage._client.abort_multipart_upload(Bucket=bucket, Key="run/a", UploadId=upload)
        return True

    assert storage.abort_uploads(S3Uri(bucket, "run"), is_dead) == 1
    assert not storage._has_warned
