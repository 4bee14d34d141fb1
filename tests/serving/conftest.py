"""Tiny models, and a server with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
from openai import OpenAI

from tests.data.conftest import aws, bucket, s3_endpoint, storage
from tests.serving.server import Server, serving, tiny_settings
from tests.support.tiny_model import make_tiny_model

__all__ = ["aws", "bucket", "s3_endpoint", "storage"]


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
