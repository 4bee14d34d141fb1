"""A real S3 server of moto's, which the gateway's files are in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from finetune_storage.s3 import Storage
from tests.data.conftest import aws, bucket, s3_endpoint, storage
from tests.gateway.files_server import FilesServer

__all__ = ["aws", "bucket", "s3_endpoint", "storage"]


@pytest.fixture
def served(storage: Storage, bucket: str) -> Iterator[FilesServer]:
    """The endpoints of files, with a bucket of its own."""
    with FilesServer(storage, bucket) as server:
        yield server
