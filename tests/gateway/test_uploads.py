"""The uploads API with OpenAI's own client: a file in several requests."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Upload
from openai.types.uploads import UploadPart

from finetune_api.uris import S3Uri
from finetune_gateway.files import joining
from finetune_gateway.files.sweep import EVERY_SECONDS
from finetune_gateway.wire.uploads import file_id_of, new_part_id, new_upload_id
from finetune_storage.multipart import LEAST_PART_BYTES
from finetune_storage.s3 import Storage
from tests.gateway.files_server import HEADERS, ROW, FilesServer
from tests.gateway.test_files import error_of

pytestmark = pytest.mark.slow

MEDIA = "application/jsonl"
LARGE = ROW * (LEAST_PART_BYTES // len(ROW) + 1)  # a part that the store itself can join


def begin(served: FilesServer, size: int, name: str = "train.jsonl") -> Upload:
    return served.client().uploads.create(
        bytes=size, filename=name, mime_type=MEDIA, purpose="fine-tune"
    )


def send(served: FilesServer, *parts: bytes, name: str = "train.jsonl") -> tuple[str, list[str]]:
    """The id of a new upload, and the ids of its parts."""
    upload = begin(served, sum(map(len, parts)), name)
    create = served.client().uploads.parts.create
    return upload.id, [create(upload.id, data=part).id for part in parts]


def post(served: FilesServer, path: str, **options: Any) -> requests.Response:
    return requests.post(f"{served.url}/v1/uploads{path}", headers=HEADERS, timeout=60, **options)


def test_a_file_is_uploaded_in_chunks(served: FilesServer, tmp_path: Path) -> None:
    content = LARGE * 2 + ROW
    path = tmp_path / "my data.jsonl"
    path.write_bytes(content)
    upload = served.client().uploads.upload_file_chunked(
        file=path,
        mime_type=MEDIA,
        purpose="fine-tune",
        part_size=len(LARGE),
        md5=hashlib.md5(content).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert upload.file.filename == "my-data.jsonl"
    assert upload.file.bytes == len(content)
    client = served.client()
    assert client.files.content(upload.file.id).content == content
    assert [file.id for file in client.files.list()] == [upload.file.id]
    assert not [key for key in served.keys if "/parts/" in key]
    assert served.unfinished == []


def test_the_objects_are_those_of_the_newest_client(served: FilesServer) -> None:
    raw = served.client().uploads.with_raw_response
    made = raw.create(bytes=len(ROW), filename="a.jsonl", mime_type=MEDIA, purpose="fine-tune")
    upload = Upload.model_validate_json(made.content, strict=True)
    assert upload.expires_at == upload.created_at + 3600
    part = raw.parts.create(upload.id, data=ROW)
    found = UploadPart.model_validate_json(part.content, strict=True)
    done = raw.complete(upload.id, part_ids=[found.id]).content
    assert Upload.model_validate_json(done, strict=True).file is not None
    other = begin(served, 1)
    cancelled = raw.cancel(other.id).content
    assert Upload.model_validate_json(cancelled, strict=True).status == "cancelled"


# --- joining -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "is_copied"),
    [
        ([LARGE, LARGE, ROW], True),
        ([ROW], True),
        ([ROW, LARGE], False),
        ([ROW, ROW, ROW], False),
        ([LARGE, ROW, LARGE, ROW], False),
    ],
)
def test_parts_are_joined_by_the_store_where_it_can(
    served: FilesServer, monkeypatch: pytest.MonkeyPatch, parts: list[bytes], is_copied: bool
) -> None:
    copied: list[S3Uri] = []
    copy = joining.Joining._copy

    async def record(self: joining.Joining, target: S3Uri) -> None:
        copied.append(target)
        await copy(self, target)

    monkeypatch.setattr(joining.Joining, "_copy", record)
    upload_id, part_ids = send(served, *parts)
    file = served.client().uploads.complete(upload_id, part_ids=part_ids).file
    assert file is not None
    assert served.client().files.content(file.id).content == b"".join(parts)
    assert bool(copied) is is_copied


def test_a_store_that_cannot_copy_parts_gets_them_from_the_gateway(
    served: FilesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def answer(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "NotImplemented"}}, "UploadPartCopy")

    monkeypatch.setattr(served.storage._client, "upload_part_copy", answer)
    upload_id, part_ids = send(served, LARGE, ROW)
    file = served.client().uploads.complete(upload_id, part_ids=part_ids).file
    assert file is not None
    assert served.client().files.content(file.id).content == LARGE + ROW
    assert served.unfinished == []


def test_the_order_of_the_ids_is_the_order_of_the_bytes(served: FilesServer) -> None:
    first, second = ROW, ROW.replace(b"a", b"z")
    upload_id, part_ids = send(served, first, second)
    file = served.client().uploads.complete(upload_id, part_ids=part_ids[::-1]).file
    assert file is not None
    assert served.client().files.content(file.id).content == second + first


def test_parts_that_the_client_repeated_are_left_out(served: FilesServer) -> None:
    upload_id, part_ids = send(served, ROW)
    again = served.client().uploads.parts.create(upload_id, data=ROW)
    done = served.client().uploads.complete(upload_id, part_ids=[again.id])
    assert done.file is not None
    assert done.file.bytes == len(ROW)
    assert part_ids[0] != again.id
    assert not [key for key in served.keys if "/parts/" in key]


# --- repeated and simultaneous requests ----------------------------------------------------------


def test_a_completed_upload_answers_its_file_again(served: FilesServer) -> None:
    upload_id, part_ids = send(served, ROW, ROW)
    complete = served.client().uploads.complete
    done = complete(upload_id, part_ids=part_ids)
    assert complete(upload_id, part_ids=part_ids) == done
    assert len(served.client().files.list().data) == 1
    with pytest.raises(openai.BadRequestError, match="completed with other parts"):
        complete(upload_id, part_ids=part_ids[:1])
    with pytest.raises(openai.BadRequestError, match="has been completed already"):
        served.client().uploads.cancel(upload_id)
    with pytest.raises(openai.BadRequestError, match="has been completed already"):
        served.client().uploads.parts.create(upload_id, data=ROW)
    assert done.file is not None
    served.client().files.delete(done.file.id)
    with pytest.raises(openai.BadRequestError, match="or its file was deleted"):
        complete(upload_id, part_ids=part_ids)


def test_a_gateway_that_ends_after_its_decision_is_continued(
    served: FilesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id, part_ids = send(served, ROW, ROW)

    with monkeypatch.context() as patch:
        patch.setattr(joining.Joining, "write", failing)
        with pytest.raises(openai.InternalServerError):
            served.client().uploads.complete(upload_id, part_ids=part_ids)
    with pytest.raises(openai.BadRequestError, match="has been completed already"):
        served.client().uploads.cancel(upload_id)
    done = served.client().uploads.complete(upload_id, part_ids=part_ids)
    assert done.file is not None
    assert done.file.bytes == 2 * len(ROW)


async def failing(*_: object) -> None:
    from finetune_web.problems import unavailable

    raise unavailable("away")


def test_simultaneous_completions_and_cancellations_have_one_end(served: FilesServer) -> None:
    async def race(upload_id: str, part_ids: list[str]) -> list[Any]:
        client = openai.AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key="sk-ft-anna", max_retries=0
        )
        async with client:
            return await asyncio.gather(
                *(client.uploads.complete(upload_id, part_ids=part_ids) for _ in range(3)),
                client.uploads.complete(upload_id, part_ids=part_ids[::-1]),
                client.uploads.cancel(upload_id),
                return_exceptions=True,
            )

    ends = set()
    for _ in range(5):
        upload_id, part_ids = send(served, ROW, ROW.replace(b"a", b"b"))
        answers = asyncio.run(race(upload_id, part_ids))
        done = {a.status for a in answers if isinstance(a, Upload)}
        assert len(done) == 1, answers
        refused = [a for a in answers if not isinstance(a, Upload)]
        assert all(
            isinstance(a, openai.BadRequestError | openai.InternalServerError) for a in refused
        )
        ends |= done
        is_file = served.run(served.files.find(file_id_of(upload_id))) is not None
        assert is_file == (done == {"completed"})
        assert not [key for key in served.keys if upload_id in key and "/parts/" in key]
    assert served.unfinished == []


def test_a_cancelled_upload_takes_and_leaves_nothing(served: FilesServer) -> None:
    upload_id, part_ids = send(served, ROW)
    uploads = served.client().uploads
    assert uploads.cancel(upload_id).status == "cancelled"
    assert uploads.cancel(upload_id).status == "cancelled"
    assert not [key for key in served.keys if "/parts/" in key]
    with pytest.raises(openai.BadRequestError, match="has been cancelled already"):
        uploads.parts.create(upload_id, data=ROW)
    with pytest.raises(openai.BadRequestError, match="has been cancelled"):
        uploads.complete(upload_id, part_ids=part_ids)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": True}, "bytes"),
        ({"bytes": "7"}, "bytes"),
        ({"bytes": None}, "bytes"),
        ({"bytes": 157_286_401}, "bytes"),
        ({"bytes": 2**62}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"filename": 7}, "filename"),
        ({"purpose": "batch"}, "purpose"),
        ({"purpose": None}, "purpose"),
        ({"mime_type": 7}, "mime_type"),
        ({"mime_type": "x" * 300}, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_beginning_is_refused(
    served: FilesServer, change: dict[str, Any], param: str
) -> None:
    right = {"bytes": 7, "filename": "a.jsonl", "mime_type": MEDIA, "purpose": "fine-tune"}
    answer = post(served, "", json=right | change)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param
    assert served.keys == []


def test_a_larger_limit_of_files_is_one_of_uploads_up_to_eight_gibibytes(
    storage: Storage, bucket: str
) -> None:
    limits = {"maxFileBytes": 2**40}
    with FilesServer(storage, bucket, data=limits, filesQuotaBytes=0) as served:
        assert begin(served, 8 * 2**30).bytes == 8 * 2**30
        with pytest.raises(openai.BadRequestError, match="more than 8,589,934,592 bytes"):
            begin(served, 8 * 2**30 + 1)


@pytest.mark.parametrize(
    ("parts", "name", "options", "code"),
    [
        ([ROW], "a.jsonl", {"part_ids": ["part_" + "0" * 26]}, "part_not_found"),
        ([ROW], "a.jsonl", {"part_ids": ["../upload.json"]}, "part_not_found"),
        ([ROW], "a.jsonl", {"md5": "0" * 32}, "md5_mismatch"),
        ([ROW, b"[]\n"], "a.jsonl", {}, "invalid_jsonl"),
        ([b"\n"], "a.jsonl", {}, "empty_file"),
        ([b"x"], "a.csv", {"md5": "0" * 32}, "md5_mismatch"),
    ],
)
def test_a_wrong_end_leaves_the_upload_as_it_is(
    served: FilesServer, parts: list[bytes], name: str, options: dict[str, Any], code: str
) -> None:
    upload_id, part_ids = send(served, *parts, name=name)
    before = served.keys
    answer = post(served, f"/{upload_id}/complete", json={"part_ids": part_ids} | options)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == code
    assert served.keys == before


def test_parts_with_another_size_than_the_upload_are_refused(served: FilesServer) -> None:
    upload_id, part_ids = send(served, ROW, ROW)
    with pytest.raises(openai.BadRequestError, match="have 35 bytes together, but the upload"):
        served.client().uploads.complete(upload_id, part_ids=part_ids[:1])
    twice = served.client().uploads.complete(upload_id, part_ids=[part_ids[0], part_ids[0]])
    assert twice.file is not None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"part_ids": []},
        {"part_ids": "part_1"},
        {"part_ids": [1]},
        {"part_ids": ["a"], "md5": "x"},
        {"part_ids": ["a"], "md5": 7},
        {"part_ids": ["a"], "sha256": "x"},
        {"part_ids": ["a"] * 10_001},
    ],
)
def test_a_body_with_other_fields_is_refused(served: FilesServer, body: dict[str, Any]) -> None:
    upload_id, _ = send(served, ROW)
    assert post(served, f"/{upload_id}/complete", json=body).status_code == 400


def test_a_digest_in_capitals_is_right(served: FilesServer) -> None:
    upload_id, part_ids = send(served, ROW)
    digest = hashlib.md5(ROW).hexdigest().upper()
    assert served.client().uploads.complete(upload_id, part_ids=part_ids, md5=digest).file


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([("data", ("upload", b""))], "missing_data"),
        ([("file", ("upload", ROW))], "unknown_field"),
        ([("data", ("upload", ROW)), ("data", ("upload", ROW))], "unknown_field"),
        ([("data", ("upload", b"x" * (64 * 2**20 + 1)))], "part_too_large"),
    ],
)
def test_a_wrong_part_is_refused_and_leaves_nothing(
    served: FilesServer, files: list[Any], code: str
) -> None:
    upload = begin(served, 100_000_000)
    answer = post(served, f"/{upload.id}/parts", files=files)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == code
    assert served.keys == [f"gateway/ml/uploads/{upload.id}/upload.json"]
    assert served.unfinished == []


def test_an_upload_cannot_grow_without_end(
    served: FilesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune_gateway.files import upload_sessions

    monkeypatch.setattr(upload_sessions, "PART_BYTES", 10)
    upload = begin(served, 10)
    create = served.client().uploads.parts.create
    for _ in range(3):
        create(upload.id, data=b"x" * 10)
    with pytest.raises(openai.BadRequestError, match="has 3 parts with 30 bytes, but it is for"):
        create(upload.id, data=b"x")


UNKNOWN = ["upload_x", "x", "..%2F..", "upload_" + "0" * 26, "%2E%2E", "upload_" + "é" * 26]


@pytest.mark.parametrize("upload_id", UNKNOWN)
def test_an_unknown_upload_is_404(served: FilesServer, upload_id: str) -> None:
    for path, body in (
        ("parts", {"files": {"data": ROW}}),
        ("complete", {"json": {"part_ids": ["a"]}}),
        ("cancel", {}),
    ):
        answer = post(served, f"/{upload_id}/{path}", **body)
        assert answer.status_code == 404
        error_of(answer)


def test_an_upload_that_cannot_be_read_is_404(served: FilesServer) -> None:
    upload = begin(served, 7)
    uri = S3Uri(served.bucket, f"gateway/ml/uploads/{upload.id}/upload.json")
    for content in (b"", b"[]", b'{"bytes": -1}', b"\xff", b"{" * 2_000_000):
        served.storage.write_bytes(uri, content)
        assert post(served, f"/{upload.id}/cancel").status_code == 404


# --- time ----------------------------------------------------------------------------------------


def test_an_upload_expires_after_an_hour(served: FilesServer) -> None:
    upload_id, part_ids = send(served, ROW)
    served.files.now = lambda: datetime.now(UTC) + timedelta(hours=1, minutes=1)
    with pytest.raises(openai.BadRequestError, match="has expired"):
        served.client().uploads.parts.create(upload_id, data=ROW)
    with pytest.raises(openai.BadRequestError, match="has expired"):
        served.client().uploads.complete(upload_id, part_ids=part_ids)


def test_the_next_upload_deletes_expired_ones(served: FilesServer) -> None:
    now = datetime.now(UTC)
    old, young = new_upload_id(now - timedelta(hours=3)), new_upload_id(now - timedelta(hours=1))
    foreign = ["gateway/ml/uploads/readme.txt", "gateway/ml/uploads/upload_x/parts/a"]
    for upload_id in (old, young):
        for name in ("upload.json", f"parts/{new_part_id(now)}"):
            uri = S3Uri(served.bucket, f"gateway/ml/uploads/{upload_id}/{name}")
            served.storage.write_bytes(uri, b"{}")
    for key in foreign:
        served.storage.write_bytes(S3Uri(served.bucket, key), b"x")
    made = served.client().files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    assert not [key for key in served.keys if old in key]
    assert len([key for key in served.keys if young in key]) == 2
    assert set(foreign) < set(served.keys)
    assert served.client().files.retrieve(made.id)


def test_expired_uploads_are_looked_for_every_ten_minutes(served: FilesServer) -> None:
    times = [0.0]
    served.files._sweep._clock = lambda: times[0]
    served.client().files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    old = new_upload_id(datetime.now(UTC) - timedelta(hours=3))
    uri = S3Uri(served.bucket, f"gateway/ml/uploads/{old}/upload.json")
    served.storage.write_bytes(uri, b"{}")
    served.client().files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    assert served.storage.exists(uri)
    times[0] += EVERY_SECONDS
    served.client().files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    assert not served.storage.exists(uri)


# --- any bodies ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(storage: Storage) -> Iterator[FilesServer]:
    storage._client.create_bucket(Bucket="any-uploads")
    with FilesServer(storage, "any-uploads") as server:
        yield server


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(["bytes", "filename", "mime_type", "purpose", "part_ids", "md5"])


@settings(max_examples=100)
@given(st.dictionaries(FIELDS, JSON | st.sampled_from(["fine-tune", 7])) | JSON)
def test_no_body_is_an_error_of_the_gateway(shared: FilesServer, body: Any) -> None:
    for path in ("", "/upload_x/complete"):
        answer = requests.post(
            f"{shared.url}/v1/uploads{path}", headers=HEADERS, json=finite(body), timeout=30
        )
        assert answer.status_code in {200, 400, 404}
        if answer.status_code != 200:
            error_of(answer)
    assert all(key.startswith("gateway/ml/uploads/upload_") for key in shared.keys)


def finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else 0.5
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value
