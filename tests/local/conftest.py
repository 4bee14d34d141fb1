"""Fixtures: a base model, and `finetune serve` in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.serving import Server
from tests.support.tiny_model import make_word_model


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_word_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def server(tmp_path: Path, base: Path) -> Iterator[Server]:
    """A server that is not running yet."""
    found = Server(tmp_path, base)
    yield found
    found.close()
