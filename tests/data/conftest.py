"""One moto server for the whole run, a bucket for each test, and a server with errors."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from tests.data.builders import safetensors_bytes, write_tokenizer
from tests.data.hub import Hub
from tests.data.stub_server import StubServer
from tests.support.proxy import FaultyProxy
from tests.support.stores import STORES

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


OF_THIS_MACHINE = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_CA_BUNDLE",
)


def set_environment(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    """The standard AWS_* settings, without those of this machine."""
    for name in OF_THIS_MACHINE:
        patch.delenv(name, raising=False)
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_MAX_ATTEMPTS": "2",
    }
    for name, value in settings.items():
        patch.setenv(name, value)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, s3_endpoint: str) -> pytest.MonkeyPatch:
    """The environment of a pod, with moto as the endpoint."""
    set_environment(monkeypatch, s3_endpoint)
    return monkeypatch


# Clients are made once: each reads S3's whole description, which takes a quarter of a second.


@pytest.fixture(scope="session")
def storage(s3_endpoint: str) -> Storage:
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, s3_endpoint)
        return open_storage()


@pytest.fixture(scope="module")
def proxy(s3_endpoint: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_endpoint) as made:
        yield made


@pytest.fixture(scope="module")
def client(proxy: FaultyProxy) -> Storage:
    """The storage as a pod sees it."""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, proxy.url)
        return open_storage()


@pytest.fixture(params=list(STORES))
def weak(request: pytest.FixtureRequest, proxy: FaultyProxy) -> Iterator[str]:
    """Each kind of store."""
    proxy.store = STORES[request.param]()
    yield request.param
    proxy.store = STORES["S3"]()


@pytest.fixture
def bucket(storage: Storage) -> str:
    name = f"bucket-{next(_numbers):03}"  # one length: terminals are compared
    storage._client.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def stub_server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def stub(stub_server: StubServer) -> StubServer:
    """A server with answers of the test."""
    stub_server.reset()
    return stub_server


@pytest.fixture
def hub(stub: StubServer, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with a complete model, next to files that are not needed."""
    files = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    files |= {"model.safetensors": safetensors_bytes(), "x.py": b"", "onnx/model.safetensors": b""}
    files["additional_chat_templates/tool_use.jinja"] = b"{{ tools }}"
    monkeypatch.setenv("HF_ENDPOINT", stub.url)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    stub.answer = Hub(files)
    return stub.answer


@pytest.fixture(scope="session")
def stub_storage(stub_server: StubServer) -> Storage:
    """A client of the stub server."""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, stub_server.url)
        return open_storage()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without weights, BPE over bytes."""
    return write_tokenizer(tmp_path_factory.mktemp("model"))
