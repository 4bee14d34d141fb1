"""The endpoints that pods connect to: listed ones, and never addresses of the node by accident."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.names import ENV_ALLOWED_ENDPOINTS, Reason
from finetune_api.outcome import Failure
from finetune_api.uris import EndpointPattern, HubUri, S3Uri
from finetune_data.errors import BaseModelError
from finetune_data.models.hub import HubModel
from finetune_data.models.hub_client import guard_hub_client
from finetune_storage.connect import open_storage
from finetune_storage.endpoints import EndpointPolicy, find_problem
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage
from tests.data.conftest import set_environment
from tests.data.hub import COMMIT, Hub
from tests.data.stub_server import Answer, Request, StubServer, s3_error

OBJECT = S3Uri.parse("s3://bucket/file")
PRIVATE = "http://10.255.0.1:9000"
Allow = Callable[..., None]
REFUSED = (
    "127.0.0.1",
    "127.8.9.1",
    "::1",
    "169.254.169.254",
    "169.254.170.2",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "168.63.129.16",
    "100.100.100.200",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
)
REACHED = (
    "10.0.0.1",
    "192.168.1.9",
    "172.20.0.3",
    "100.64.0.9",
    "fd00:10::1",
    "52.216.0.1",
    "2600::1",
)


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Allow:
    def set_list(*patterns: str) -> None:
        monkeypatch.setenv(ENV_ALLOWED_ENDPOINTS, json.dumps(patterns))

    return set_list


def failure_of(act: Callable[[], Any]) -> Failure:
    with pytest.raises(StorageError) as caught:
        act()
    return caught.value.failure


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_of_the_node_and_of_metadata_services_are_refused(address: str) -> None:
    assert find_problem(address)
    host = f"[{address}]" if ":" in address else address
    for policy in (EndpointPolicy([]), EndpointPolicy(["*"])):
        failure = failure_of(lambda policy=policy: policy.check(f"http://{host}:9000/b/k"))
        assert failure.code == Reason.INVALID_SPEC
        assert "pods.allowedEndpoints" in failure.message
    if "%" not in address:
        EndpointPolicy([host]).check(f"http://{host}:9000/b/k")


@pytest.mark.parametrize("address", REACHED)
def test_private_and_public_addresses_are_not(address: str) -> None:
    assert find_problem(address) is None
    EndpointPolicy([]).check(f"https://[{address}]" if ":" in address else f"http://{address}")


@pytest.mark.parametrize(
    "url",
    [
        "http://2852039166/b/k",
        "http://0xa9fea9fe/b/k",
        "http://0251.0376.0251.0376/b/k",
        "http://169.254.43518/b/k",
        "http://localhost:9000",
        "http://LOCALHOST./b",
        "http://user:secret@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://10.0.0.1/",
        "http://",
        "http://[::1",
    ],
)
def test_other_spellings_and_other_schemes_are_refused(url: str) -> None:
    failure = failure_of(lambda: EndpointPolicy([]).check(url))
    assert "secret" not in failure.message.replace("Secret", "").replace("secretName", "")


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("https://s3.example.com", ["https://s3.example.com/b", "https://b.s3.example.com"],
         ["http://s3.example.com", "https://s3.example.com:9000", "https://evils3.example.com"]),
        ("s3.example.com", ["http://s3.example.com:1", "https://S3.Example.COM."],
         ["https://example.com", "https://s3.example.com.evil.com"]),
        ("s3.example.com:9000", ["http://s3.example.com:9000"], ["http://s3.example.com"]),
        ("*.amazonaws.com", ["https://b.s3.eu-west-1.amazonaws.com"],
         ["https://amazonaws.com", "https://amazonaws.com.evil.com"]),
        ("http://10.0.0.5:9000", ["http://10.0.0.5:9000/b/k"], ["http://10.0.0.6:9000"]),
        ("http://[fd00:10::5]:9000/", ["http://[fd00:10::5]:9000"], ["http://[fd00:10::6]:9000"]),
    ],
)  # fmt: skip
def test_only_what_the_administrator_lists_is_allowed(
    pattern: str, matches: list[str], others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, **_: object) -> list[Any]:
        return [(0, 0, 0, "", ("198.51.100.7", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    policy = EndpointPolicy(["https://other.example", pattern])
    for url in matches:
        policy.check(url)
    for url in others:
        assert "does not list it" in failure_of(lambda url=url: policy.check(url)).message


@pytest.mark.parametrize(
    "text", ["", "ftp://host", "https://host/path", "a b", "*x.com", "h:x", "**"]
)
def test_an_entry_that_is_not_an_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an endpoint"):
        EndpointPattern.parse(text)


def test_the_store_of_the_secret_is_refused_before_a_connection(
    aws: pytest.MonkeyPatch, allow: Allow, stub: StubServer
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", stub.url)
    allow()
    assert "loopback" in failure_of(open_storage).message
    allow("https://s3.example.com")
    assert "does not list it" in failure_of(open_storage).message
    assert stub.requests == []
    allow(stub.url)
    assert failure_of(lambda: open_storage().head(OBJECT)).code == Reason.BUCKET_NOT_FOUND
    assert stub.requests


def test_without_a_list_in_the_environment_nothing_is_checked(
    aws: pytest.MonkeyPatch, stub: StubServer
) -> None:
    """On a user's machine, and in pods of an earlier operator."""
    aws.delenv(ENV_ALLOWED_ENDPOINTS, raising=False)
    aws.setenv("AWS_ENDPOINT_URL", stub.url)
    assert failure_of(lambda: open_storage().head(OBJECT)).code == Reason.BUCKET_NOT_FOUND


@pytest.fixture
def other() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_the_store_reaches_no_other_host(
    aws: pytest.MonkeyPatch, allow: Allow, stub: StubServer, other: StubServer, status: int
) -> None:
    target = {"Location": f"{other.url}/latest/meta-data", "x-amz-bucket-region": "eu-west-1"}
    stub.answer = lambda _: Answer(status, b"", target)
    aws.setenv("AWS_ENDPOINT_URL", stub.url)
    allow(stub.url)
    storage = open_storage()
    for act in (storage.head, storage.read_bytes, storage.list):
        failure_of(lambda act=act: act(OBJECT))
    assert stub.requests
    assert other.requests == []


def test_a_request_whose_address_was_changed_is_checked_again(
    aws: pytest.MonkeyPatch, allow: Allow, stub: StubServer, other: StubServer
) -> None:
    """As botocore does it for a bucket in another region."""
    aws.setenv("AWS_ENDPOINT_URL", stub.url)
    allow(stub.url)
    storage = open_storage()

    def redirect(request: Any, **_: object) -> None:
        request.url = request.url.replace(stub.url, other.url)

    storage._client.meta.events.register("before-sign.s3", redirect)
    assert "does not list it" in failure_of(lambda: storage.read_bytes(OBJECT)).message
    assert other.requests == stub.requests == []


def test_a_name_that_changes_its_address_after_the_check_is_refused(
    aws: pytest.MonkeyPatch, allow: Allow, stub: StubServer
) -> None:
    real, port = socket.getaddrinfo, int(stub.url.rpartition(":")[2])
    answers = ["10.0.0.1"]

    def resolve(host: str, *arguments: Any, **named: Any) -> Any:
        if host == "rebinding.example":
            host = answers.pop() if answers else "127.0.0.1"
        return real(host, *arguments, **named)

    aws.setattr(socket, "getaddrinfo", resolve)
    aws.setenv("AWS_ENDPOINT_URL", f"http://rebinding.example:{port}")
    aws.setenv("AWS_MAX_ATTEMPTS", "1")
    allow()
    storage = open_storage()
    assert answers == []
    failure = failure_of(lambda: storage.read_bytes(OBJECT))
    assert failure.code == Reason.INVALID_SPEC
    assert "loopback" in failure.message
    assert stub.requests == []


# --- the credentials of a workload identity -------------------------------------------------------


def test_the_credentials_of_the_node_are_read_although_stores_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, allow: Allow, stub: StubServer, tmp_path: Path
) -> None:
    """EKS Pod Identity: an agent at a link-local address, here a loopback address."""
    set_environment(monkeypatch, PRIVATE)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    token = tmp_path / "token"
    token.write_text("the-token")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{stub.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    found = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "s", "Token": "t"}
    found["Expiration"] = "2099-01-01T00:00:00Z"
    stub.answer = lambda _: Answer(200, json.dumps(found).encode())
    allow()
    client: Any = open_storage()._client
    url = client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "ASIAROLE" in url
    assert stub.requests == ["GET /v1/credentials"]


@pytest.mark.parametrize("named", [False, True])
def test_the_token_of_the_workload_identity_never_goes_to_the_store(
    monkeypatch: pytest.MonkeyPatch, allow: Allow, stub: StubServer, tmp_path: Path, named: bool
) -> None:
    """A service for tokens that is not AWS must be named by the administrator."""
    set_environment(monkeypatch, stub.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    token = tmp_path / "token"
    token.write_text("the-token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/finetune")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if named:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stub.url)
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **more: Any) -> Any:
        if host.endswith("amazonaws.com"):
            raise socket.gaierror("no network in tests")
        return real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    allow(stub.url)
    failure_of(lambda: open_storage().head(OBJECT))
    assert bool(stub.requests) == named


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub's client as in a new process."""
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    before = _http._GLOBAL_CLIENT_FACTORY
    guard_hub_client.cache_clear()
    yield
    set_client_factory(before)
    guard_hub_client.cache_clear()


def model() -> HubModel:
    return HubModel(HubUri.parse("hf://acme/tiny@v1"), ["*.json"], "tiny")


def test_the_hub_is_an_endpoint_too(
    hub: Hub, stub: StubServer, allow: Allow, guarded: None
) -> None:
    allow("https://huggingface.co")
    assert "does not list it" in failure_of(model).message
    assert stub.requests == []


def test_an_allowed_hub_is_read_without_a_client_that_is_not_checked(
    hub: Hub, stub: StubServer, allow: Allow, guarded: None, tmp_path: Path
) -> None:
    from huggingface_hub.utils._runtime import is_xet_available

    allow(stub.url)
    found = model()
    found.fetch(["config.json"], tmp_path)
    assert (tmp_path / "config.json").read_bytes() == hub.files["config.json"]
    assert not is_xet_available()


def test_a_redirect_of_the_hub_is_checked(
    hub: Hub, stub: StubServer, other: StubServer, allow: Allow, guarded: None, tmp_path: Path
) -> None:
    allow(stub.url)
    found = model()
    aside = other.url.replace("127.0.0.1", "localhost")
    facts = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": '"1"', "X-Linked-Size": "9"}
    stub.answer = lambda request: Answer(302, b"", {"Location": aside + request.path, **facts})
    for act in (model, lambda: found.read_header("config.json")):
        assert "does not list it" in failure_of(act).message
    assert "does not list it" in failure_of(lambda: found.fetch(["config.json"], tmp_path)).message
    assert other.requests == []


def test_the_answer_of_an_address_that_changed_is_not_used(
    hub: Hub, stub: StubServer, allow: Allow, guarded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, port = socket.getaddrinfo, int(stub.url.rpartition(":")[2])
    answers = ["10.0.0.1"]

    def resolve(host: str | bytes, *arguments: Any, **named: Any) -> Any:
        if host in {"rebinding.example", b"rebinding.example"}:
            host = answers.pop() if answers else "127.0.0.1"
        return real(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("HF_ENDPOINT", f"http://rebinding.example:{port}")
    allow()
    assert "loopback" in failure_of(model).message
    assert answers == []


# --- answers of other services --------------------------------------------------------------------

LEAK = "ASIALEAK0123"
DOCUMENTS = {
    "json": json.dumps({"Code": "Success", LEAK: LEAK, "nested": {LEAK: [LEAK]}}).encode(),
    "jsonl": f'{{"{LEAK}": "{LEAK}", "prompt": "{LEAK}"}}\n'.encode() * 3,
    "xml": f"<{LEAK}><Code>{LEAK} and more</Code><Key>{LEAK}</Key></{LEAK}>".encode(),
    "error": f"<Error><Code>{LEAK} {LEAK}</Code><Message>{LEAK}</Message></Error>".encode(),
    "listing": f"<ListBucketResult><Contents><{LEAK}/></Contents></ListBucketResult>".encode(),
    "html": f"<html><title>{LEAK}".encode(),
    "csv": f"{LEAK},{LEAK}\n{LEAK},2\n".encode(),
    "nothing": b"",
}
ODD = {"Last-Modified": LEAK, "ETag": LEAK, "x-amz-bucket-region": LEAK, "Content-Range": LEAK}
MANY = [(document, status) for document in DOCUMENTS for status in (200, 206, 302, 307, 400, 405)]
FEW = [("json", 200), ("error", 400), ("error", 404), ("listing", 200), ("html", 302)]


@pytest.mark.parametrize("headers", [{}, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize(
    ("document", "status"), [*FEW, *(pytest.param(*one, marks=pytest.mark.slow) for one in MANY)]
)
def test_no_part_of_the_answer_of_another_service_reaches_a_message(
    service: Storage, stub: StubServer, document: str, status: int, headers: dict[str, str]
) -> None:
    stub.answer = lambda _: Answer(status, DOCUMENTS[document], headers)
    service._must_prove = True
    for act in (service.head, service.read_bytes, service.read_version, service.list):
        try:
            found = act(OBJECT)
        except StorageError as error:
            assert LEAK not in error.failure.to_json()
        else:  # no message has the ETag
            assert act in {service.head, service.list}
            assert LEAK not in str(found).replace(f"etag='{LEAK}'", "")
    assert len(stub.requests) < 30


@pytest.fixture(scope="module")
def service(stub_server: StubServer) -> Storage:
    """The client of a pod."""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, stub_server.url)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setenv(ENV_ALLOWED_ENDPOINTS, json.dumps([stub_server.url]))
        return open_storage()


def test_a_store_is_proved_once_and_without_the_right_to_list(
    service: Storage, stub: StubServer
) -> None:
    def answer(request: Request) -> Answer:
        if "no-such-object" in request.path:
            return s3_error("AccessDenied", 403)
        return Answer(200, b"data", {"ETag": '"1"'})

    stub.answer = answer
    service._must_prove = True
    assert service.read_bytes(OBJECT) == b"data"
    assert service.read_bytes(OBJECT) == b"data"
    assert len([line for line in stub.requests if "no-such-object" in line]) == 1


def test_a_real_store_is_one(
    aws: pytest.MonkeyPatch, allow: Allow, s3_endpoint: str, bucket: str
) -> None:
    allow(s3_endpoint)
    storage = open_storage()
    uri = S3Uri(bucket, "file")
    storage.write_bytes(uri, b"data")
    assert storage.read_bytes(uri) == b"data"


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("status", [200, 404])
def test_no_part_of_the_answer_of_another_service_is_taken_for_that_of_a_hub(
    stub: StubServer, hub: Hub, document: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answer = lambda _: Answer(status, DOCUMENTS[document], {"X-Error-Message": LEAK})
    try:
        found = model()
    except BaseModelError as error:
        assert LEAK not in error.failure.to_json()
    else:
        assert found.names == []
