"""Tiny models, and a server with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
from openai import OpenAI

from finetune_api.names import LOCAL_BUCKET
from finetune_api.uris import S3Uri
from finetune_storage.s3 import Storage
from tests.data.conftest import aws, bucket, s3_endpoint, storage, stub, stub_server
from tests.serving.published_model import ObservedStorage, Published, publish
from tests.serving.server import Server, serving, tiny_settings
from tests.support.tiny_model import make_tiny_model

__all__ = ["aws", "bucket", "s3_endpoint", "storage", "stub", "stub_server"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template and a context of 64 tokens."""
    return make_tiny_model(tmp_path_factory.mktemp("serving") / "tiny")


@pytest.fixture(scope="session")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    folder = tmp_path_factory.mktemp("serving") / "plain"
    copytree(tiny, folder)
    for path in folder.glob("chat_template*"):
        path.unlink()
    return folder


@pytest.fixture(scope="session")
def server(tiny: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = tiny_settings(tmp_path_factory.mktemp("serving"), tiny=tiny, plain=plain)
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> OpenAI:
    return server.client()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The mounted volume: a folder that exists and is empty."""
    path = tmp_path / "volume" / "model"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def model(storage: Storage, bucket: str, folder: Path) -> Published:
    """In an S3 server."""
    return publish(storage, S3Uri(bucket, "out/team/tone-11111111/model"), folder)


@pytest.fixture
def observed(tmp_path: Path) -> ObservedStorage:
    return ObservedStorage(tmp_path / "store")


@pytest.fixture
def local(observed: ObservedStorage, folder: Path) -> Published:
    """In a folder of this machine."""
    return publish(observed, S3Uri(LOCAL_BUCKET, "model"), folder)
