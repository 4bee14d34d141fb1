"""Data files in S3: objects, prefixes, and patterns."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from finetune_api.uris import S3Uri
from finetune_data.errors import DataError
from finetune_data.read.examples import Row
from finetune_data.read.reader import Reader
from finetune_data.read.sources import find_sources
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage
from tests.data.builders import compress, jsonl

ROWS = [{"prompt": "a", "completion": "b"}]


@pytest.fixture
def raw(storage: Storage, bucket: str) -> str:
    for name in ("b.jsonl", "a.csv.gz", "deep/c.jsonl", "notes.md"):
        data = compress(b"prompt,completion\na,b\n") if name.endswith(".gz") else jsonl(ROWS)
        storage.write_bytes(S3Uri(bucket, f"raw/{name}"), data)
    return f"s3://{bucket}/raw"


@pytest.mark.parametrize(
    ("ending", "names"),
    [
        ("/b.jsonl", ["b.jsonl"]),
        ("/", ["a.csv.gz", "b.jsonl", "c.jsonl"]),
        ("/*.jsonl", ["b.jsonl"]),
        ("/*.csv*", ["a.csv.gz"]),
    ],
)
def test_objects_are_found_and_read(
    storage: Storage, raw: str, tmp_path: Path, ending: str, names: list[str]
) -> None:
    sources = find_sources([f"{raw}{ending}"], storage, tmp_path)
    assert [PurePosixPath(source.name).name for source in sources] == names
    for source in sources:
        [batch] = Reader(source).batches()
        assert [(row.prompt, row.completion) for row in batch.examples if isinstance(row, Row)] == [
            ("a", "b")
        ]
        assert source.identity.etag
        assert len(source.identity.sha256) == 64


def test_a_missing_object_is_a_sentence(storage: Storage, raw: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing\.jsonl"):
        find_sources([f"{raw}/nothing.jsonl"], storage, tmp_path)
    with pytest.raises(DataError, match="no object matches"):
        find_sources([f"{raw}/*.xlsx"], storage, tmp_path)
