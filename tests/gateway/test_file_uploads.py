"""What an upload of a file refuses, and that nothing remains of one that is not complete."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.uris import S3Uri
from finetune_gateway.files.bucket_files import UPLOADS_AT_ONCE
from finetune_gateway.files.file_names import is_safe_name
from finetune_gateway.wire.file_objects import parse_key
from finetune_storage.s3 import Storage
from tests.gateway.files_server import HEADERS, KEY, ROW, FilesServer
from tests.gateway.test_files import error_of

# aiohttp warns of forms that tests break on purpose.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::Warning:aiohttp")]
PURPOSE = ("purpose", (None, "fine-tune"))


def a_file(content: bytes = ROW, name: str = "train.jsonl") -> tuple[str, Any]:
    return ("file", (name, content, "application/octet-stream"))


def post(served: FilesServer, *fields: tuple[str, Any]) -> requests.Response:
    return requests.post(f"{served.url}/v1/files", headers=HEADERS, files=list(fields), timeout=60)


@pytest.fixture
def small(storage: Storage, bucket: str) -> Iterator[FilesServer]:
    """A gateway with low limits."""
    limits = {"maxFileBytes": 20_000_000, "maxLineBytes": 1000}
    with FilesServer(storage, bucket, data=limits, filesQuotaBytes=50_000_000) as server:
        yield server


def test_the_purpose_may_come_after_the_file(served: FilesServer) -> None:
    assert post(served, PURPOSE, a_file()).status_code == 200
    assert post(served, a_file(), PURPOSE).status_code == 200
    assert len(served.keys) == 2


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ([PURPOSE], "missing_file", "file"),
        ([a_file()], "missing_purpose", "purpose"),
        ([("purpose", (None, "batch")), a_file()], "invalid_purpose", "purpose"),
        ([a_file(), ("purpose", (None, "batch"))], "invalid_purpose", "purpose"),
        ([PURPOSE, a_file(b"")], "empty_file", "file"),
        ([PURPOSE, a_file(b"\n\n")], "empty_file", "file"),
        ([PURPOSE, a_file(b"", "train.csv")], "empty_file", "file"),
        ([PURPOSE, a_file(ROW + b"[]\n")], "invalid_jsonl", "file"),
        ([PURPOSE, a_file(b"%PDF", "paper.pdf")], "invalid_jsonl", "file"),
        ([PURPOSE, a_file(ROW[:-2])], "invalid_jsonl", "file"),
        ([PURPOSE, a_file(b"x" * 1100)], "invalid_jsonl", "file"),
        ([PURPOSE, a_file(b"a" * 21_000_000, "a.csv")], "file_too_large", "file"),
        ([PURPOSE, a_file(), ("expires_after[seconds]", (None, "1"))], "unsupported", None),
        ([PURPOSE, a_file(), ("model", (None, "ada"))], "unknown_field", "model"),
        ([PURPOSE, a_file(), a_file()], None, "file"),
        ([PURPOSE, PURPOSE, a_file()], None, "purpose"),
        ([("purpose", (None, "x" * 5000)), a_file()], None, "purpose"),
        ([PURPOSE] + [(f"x{n}", (None, "")) for n in range(40)], "unknown_field", "x0"),
    ],
)
def test_a_wrong_form_is_refused_and_leaves_nothing(
    small: FilesServer, fields: list[tuple[str, Any]], code: str | None, param: str | None
) -> None:
    answer = post(small, *fields)
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["code"] == code
    assert error["param"] == (param or "expires_after")
    assert small.keys == []
    assert small.unfinished == []


def test_the_message_has_the_number_of_the_line(served: FilesServer) -> None:
    error = error_of(post(served, PURPOSE, a_file(ROW * 40 + b"null\n" + ROW, "a/my data.jsonl")))
    assert error["message"].startswith("my-data.jsonl, line 41: the line is valid JSON, but not a ")


def test_tables_are_stored_unchecked(served: FilesServer) -> None:
    for name in ("train.csv", "train.xlsx", "train.parquet", "train.jsonl.gz", "TRAIN.JSON"):
        assert post(served, PURPOSE, a_file(b"\x00not lines", name)).status_code == 200


def test_an_expiry_is_refused_with_a_sentence(served: FilesServer) -> None:
    with pytest.raises(openai.BadRequestError, match="files stay until you delete them"):
        served.client().files.create(
            file=("a.jsonl", ROW),
            purpose="fine-tune",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
    assert served.keys == []


def test_a_file_of_unknown_length_is_cut_off_at_the_limit(small: FilesServer) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 2**20
        yield b"\r\n--b--\r\n"

    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{small.url}/v1/files", headers=headers, data=body(), timeout=60)
    assert error_of(answer)["code"] == "file_too_large"
    assert small.keys == []
    assert small.unfinished == []


def test_a_full_quota_refuses_before_and_while_a_file_arrives(
    storage: Storage, bucket: str
) -> None:
    with FilesServer(storage, bucket, filesQuotaBytes=20_000_000) as served:
        assert post(served, PURPOSE, a_file(b"x" * 15_000_000, "a.csv")).status_code == 200
        error = error_of(post(served, PURPOSE, a_file(b"x" * 9_000_000, "b.csv")))
        assert error["code"] == "file_quota_exceeded"
        assert "15,000,000 of 20,000,000 bytes" in error["message"]
        assert len(served.keys) == 1
        file_id = served.client().files.list().data[0].id
        served.client().files.delete(file_id)
        assert post(served, PURPOSE, a_file(b"x" * 9_000_000, "b.csv")).status_code == 200


# --- clients that see the answer -----------------------------------------------------------------


def test_a_client_that_sends_thirty_megabytes_sees_the_refusal(served: FilesServer) -> None:
    """Ten times, because a connection that is closed too early breaks only sometimes."""
    wrong = b"[]\n" + ROW * (30_000_000 // len(ROW))
    for _ in range(10):
        assert error_of(post(served, PURPOSE, a_file(wrong)))["code"] == "invalid_jsonl"
    with pytest.raises(openai.BadRequestError):
        served.client().files.create(file=("a.jsonl", wrong), purpose="fine-tune")
    assert served.keys == []


def test_a_client_that_reads_only_after_it_has_sent_everything_sees_the_refusal(
    served: FilesServer,
) -> None:
    """Python's own client does not look for an answer when the connection breaks."""

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        for _ in range(20):
            time.sleep(0.1)
            yield b"x" * 2**16
        yield b"\r\n--b--\r\n"

    client = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    client.request("POST", "/v1/files", body(), headers, encode_chunked=True)
    answer = client.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read())["error"]["code"] == "invalid_purpose"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (r'form-data; name="file"; filename="C:\data\train.jsonl"', "train.jsonl"),
        ('form-data; name="file"; filename="a; b; c.jsonl"', "a--b--c.jsonl"),
        ('form-data; name="file"; filename="it\'s; 1.jsonl"', "it-s--1.jsonl"),
        (r'form-data; name="file"; filename="the \"best\".jsonl"', "the--best-.jsonl"),
        ('form-data; name="file"; filename="; name=purpose"', "--name-purpose"),
        ("form-data; filename=train.jsonl; name=file", "train.jsonl"),
        ('Form-Data; Name="file"; FileName="train.jsonl"', "train.jsonl"),
        ("form-data; name=\"file\"; filename*=utf-8''donn%C3%A9es.jsonl", "donn-es.jsonl"),
        ('form-data; name="file"; filename="données.jsonl"', "donn-es.jsonl"),
        ('form-data; name="file"', "file"),
    ],
)
def test_the_name_of_a_file_is_read_as_clients_write_it(
    served: FilesServer, disposition: str, name: str
) -> None:
    body = form(ROW).replace(b'form-data; name="file"; filename="a.jsonl"', disposition.encode(), 1)
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{served.url}/v1/files", headers=headers, data=body, timeout=30)
    assert answer.json()["filename"] == name


def test_too_large_a_file_is_refused_before_its_bytes_are_requested(small: FilesServer) -> None:
    """curl sends `Expect: 100-continue`, and then no body after a refusal."""
    with connection(small) as sock:
        sock.sendall(head(small, length=10**12, Expect="100-continue"))
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"file_too_large" in answer


def test_a_client_that_waits_for_100_is_asked_to_send(served: FilesServer) -> None:
    body = form(ROW)
    with connection(served) as sock:
        sock.sendall(head(served, length=len(body), Expect="100-continue"))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert len(served.keys) == 1


# --- uploads that end early ----------------------------------------------------------------------


def connection(served: FilesServer) -> socket.socket:
    port = urlsplit(served.url).port
    assert port
    return socket.create_connection(("127.0.0.1", port), 30)


def head(served: FilesServer, *, length: int, **headers: str) -> bytes:
    lines = [
        "POST /v1/files HTTP/1.1",
        f"Host: {urlsplit(served.url).netloc}",
        f"Authorization: Bearer {KEY}",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def form(content: bytes, name: str = "a.jsonl") -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n--b--\r\n'
        % (name.encode(), content)
    )


def wait_for_end(served: FilesServer) -> None:
    """Until no upload is in progress."""
    for _ in range(300):
        if served.files._places._value == UPLOADS_AT_ONCE and not served.unfinished:
            return
        time.sleep(0.1)
    raise AssertionError("an upload does not end")


@pytest.mark.parametrize("sent", [100, 20_000_000])
def test_a_connection_that_breaks_leaves_nothing(served: FilesServer, sent: int) -> None:
    body = form(ROW * (30_000_000 // len(ROW)))
    with connection(served) as sock:
        sock.sendall(head(served, length=len(body)) + body[:sent])
        time.sleep(0.5)
    wait_for_end(served)
    assert served.keys == []
    assert served.files.quota._arriving == 0


def test_a_form_that_ends_early_is_refused_at_every_byte(served: FilesServer) -> None:
    """The length of the body is right, but its last boundary is missing."""
    whole = form(ROW)
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    with requests.Session() as session:
        for end in range(len(whole) - 4):
            answer = session.post(
                f"{served.url}/v1/files", headers=headers, data=whole[:end], timeout=30
            )
            assert answer.status_code == 400, whole[:end]
            error_of(answer)
    assert served.keys == []


@pytest.mark.parametrize("name", [b'name="\xff"', b"name*=utf-8''%ff%ED%A0%80", b'name="\x01"'])
def test_a_field_whose_name_is_no_text_is_refused(served: FilesServer, name: bytes) -> None:
    body = form(ROW).replace(b'name="purpose"', name)
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{served.url}/v1/files", headers=headers, data=body, timeout=30)
    assert answer.status_code == 400
    error_of(answer)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=" + "x" * 100,
        "multipart/mixed; boundary=b",
        "application/json",
        "",
    ],
)
def test_a_body_that_is_no_form_is_refused(served: FilesServer, content_type: str) -> None:
    headers = HEADERS | {"Content-Type": content_type}
    answer = requests.post(f"{served.url}/v1/files", headers=headers, data=form(ROW), timeout=30)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_form"


def test_an_encoded_field_is_refused_because_it_would_be_stored_encoded(
    served: FilesServer,
) -> None:
    body = form(ROW).replace(b"\r\n\r\n{", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n{")
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{served.url}/v1/files", headers=headers, data=body, timeout=30)
    assert error_of(answer)["code"] == "invalid_form"
    assert served.keys == []


# --- any bytes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(storage: Storage) -> Iterator[FilesServer]:
    """One server for all examples of a property."""
    storage._client.create_bucket(Bucket="any-bytes")
    with FilesServer(storage, "any-bytes") as server:
        yield server


PIECES = st.sampled_from(
    [
        b"--b",
        b"--b--",
        b"\r\n",
        b"\r\n\r\n",
        b'Content-Disposition: form-data; name="file"; filename="a.jsonl"',
        b'Content-Disposition: form-data; name="purpose"',
        b"Content-Disposition: form-data; name*=utf-9''x",
        b'Content-Disposition: form-data; name="\xff"',
        b"Content-Disposition: form-data; name*=utf-8''%ff%ED%A0%80",
        b"Content-Type: multipart/mixed; boundary=c",
        b'Content-Disposition: form-data; name="_charset_"',
        b"Content-Length: -1",
        b"fine-tune",
        ROW,
        b"\xff\x00",
    ]
)


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=14).map(b"".join))
def test_no_body_is_an_error_of_the_gateway(shared: FilesServer, body: bytes) -> None:
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{shared.url}/v1/files", headers=headers, data=body, timeout=30)
    assert answer.status_code in {200, 400}
    if answer.status_code == 400:
        error_of(answer)
    assert_only_files(shared)


BYTES = st.binary(max_size=20).filter(lambda data: b"\n" not in data and b"\r" not in data)
DISPOSITIONS = st.one_of(
    BYTES,
    BYTES.map(lambda name: b'Content-Disposition: form-data; name="' + name + b'"'),
    BYTES.map(lambda name: b"Content-Disposition: form-data; name*=" + name),
    BYTES.map(
        lambda name: b'Content-Disposition: form-data; name="file"; filename="' + name + b'"'
    ),
    st.just(b'Content-Disposition: form-data; name="purpose"'),
)
CONTENTS = st.sampled_from([b"fine-tune", ROW, b"", b"\r\n--b", b"\xff"])


@settings(max_examples=150)
@given(st.lists(st.tuples(DISPOSITIONS, CONTENTS), max_size=4))
def test_no_form_is_an_error_of_the_gateway(
    shared: FilesServer, parts: list[tuple[bytes, bytes]]
) -> None:
    body = b"".join(b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(
        f"{shared.url}/v1/files", headers=headers, data=body + b"--b--\r\n", timeout=30
    )
    assert answer.status_code in {200, 400}
    if answer.status_code == 400:
        error_of(answer)
    assert_only_files(shared)


@settings(max_examples=100)
@given(st.text(min_size=1, max_size=200) | st.text(alphabet="./\\%\"'\r\n\0é;=", min_size=1))
def test_no_name_of_a_file_leads_outside_of_the_prefix(shared: FilesServer, name: str) -> None:
    raw = name.encode("utf-8", "surrogatepass").replace(b'"', b"%22")
    raw = raw.replace(b"\r", b"%0D").replace(b"\n", b"%0A")
    body = form(ROW).replace(b"a.jsonl", raw, 1)
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{shared.url}/v1/files", headers=headers, data=body, timeout=30)
    assert answer.status_code in {200, 400}
    assert_only_files(shared)


def assert_only_files(shared: FilesServer) -> None:
    root = shared.settings.files_root
    for key in shared.keys:
        found = parse_key(root, S3Uri(shared.bucket, key))
        assert found is not None, key
        assert found.purpose == "fine-tune"
        assert is_safe_name(found.name)
        shared.storage.delete(S3Uri(shared.bucket, key))
