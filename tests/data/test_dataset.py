"""The tokenized dataset: every rank reads the written arrays, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.uris import S3Uri
from finetune_data.tokenize.array_files import SplitFiles
from finetune_data.tokenize.dataset import (
    DatasetManifest,
    DatasetSource,
    SplitCounts,
    TokenSplit,
    fetch_dataset,
    read_manifest,
    write_dataset,
)
from finetune_storage.manifests import file_entry
from finetune_storage.s3 import Storage

Example = tuple[list[int], bytes]
SOURCE = DatasetSource(tokenizer_sha256="t", context_length=8, inputs={})
EXAMPLES: list[Example] = [([1, 2, 3], b"\0\1\2"), ([70_000], b"\2"), ([5, 6], b"\1\2")]


def write_split(folder: Path, split: str, batches: list[list[Example]]) -> SplitFiles:
    with SplitFiles(folder, split) as files:
        for batch in batches:
            files.append(batch)
    return files


def write(folder: Path, uri: S3Uri, storage: Storage, *splits: str) -> DatasetManifest:
    folder.mkdir()
    written = {split: write_split(folder, split, [EXAMPLES]) for split in splits}
    manifest = DatasetManifest(
        source=SOURCE,
        splits={
            split: SplitCounts(examples=files.examples, tokens=files.tokens)
            for split, files in written.items()
        },
        files=[file_entry(folder, path) for files in written.values() for path in files.paths],
    )
    write_dataset(folder, uri, storage, manifest)
    return manifest


def contents(split: TokenSplit) -> list[Example]:
    return [
        (tokens.tolist(), roles.tobytes())
        for tokens, roles in (split.example(index) for index in range(len(split)))
    ]


examples = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9).flatmap(
    lambda tokens: st.tuples(st.just(tokens), st.binary(min_size=len(tokens), max_size=len(tokens)))
)


@settings(max_examples=40)
@given(batches=st.lists(st.lists(examples, max_size=4), max_size=4))
def test_appended_values_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Example]]
) -> None:
    folder = tmp_path_factory.mktemp("split")
    files = write_split(folder, "train", batches)
    split = TokenSplit.open(folder, "train")
    expected = [example for batch in batches for example in batch]
    assert contents(split) == expected
    assert split.lengths.tolist() == [len(tokens) for tokens, _ in expected]
    assert files.tokens == sum(split.lengths)
    assert files.longest == max(split.lengths.tolist(), default=0)
    assert (split.tokens.dtype, split.roles.dtype) == (np.int32, np.uint8)


def test_a_dataset_survives_a_round_trip_to_s3(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    uri = S3Uri(bucket, "out/dataset")
    manifest = write(tmp_path / "up", uri, storage, "train", "validation")
    seen: list[tuple[int, int]] = []
    dataset = fetch_dataset(uri, tmp_path / "down", storage, lambda *it: seen.append(it))
    assert contents(dataset.train) == EXAMPLES
    assert dataset.validation is not None
    assert contents(dataset.validation) == EXAMPLES
    assert dataset.manifest == manifest
    assert isinstance(dataset.train.tokens, np.memmap)
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(IndexError):
        dataset.train.example(3)
    with pytest.raises(IndexError):
        dataset.train.example(-1)


def test_without_a_validation_file_there_is_none(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    uri = S3Uri(bucket, "d")
    write(tmp_path / "up", uri, storage, "train")
    assert fetch_dataset(uri, tmp_path / "down", storage).validation is None


def test_a_prefix_without_a_manifest_does_not_exist(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    uri = S3Uri(bucket, "d")
    storage.write_bytes(uri.child("train.tokens.npy"), b"half of it")
    for manifest in (None, b"{}", b"not json", b'{"kind": "model", "files": []}'):
        if manifest is not None:
            storage.write_bytes(uri.child(MANIFEST), manifest)
        assert read_manifest(uri, storage) is None
        with pytest.raises(FailureError) as caught:
            fetch_dataset(uri, tmp_path / "down", storage)
        assert caught.value.failure.code == Reason.DATA_NOT_FOUND
        assert str(uri) in caught.value.failure.message


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_dataset_is_noticed(
    storage: Storage, bucket: str, tmp_path: Path, damage: str
) -> None:
    uri = S3Uri(bucket, "d")
    write(tmp_path / "up", uri, storage, "train")
    file = uri.child("train.tokens.npy")
    data = bytearray(storage.read_bytes(file))
    data[-1] ^= 1
    if damage == "remove":
        storage._client.delete_object(Bucket=file.bucket, Key=file.key)
    else:
        storage.write_bytes(file, bytes(data) if damage == "flip" else bytes(data[:-4]))
    with pytest.raises(FailureError) as caught:
        fetch_dataset(uri, tmp_path / "down", storage)
    assert "train.tokens.npy" in caught.value.failure.message


def test_arrays_that_do_not_belong_together_are_not_opened(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [EXAMPLES])
    for offsets in ([0, 3, 4], [0, 9, 6], [], [1, 6]):
        np.save(tmp_path / "train.offsets.npy", np.array(offsets, dtype=np.int64))
        with pytest.raises(ValueError, match="do not belong together"):
            TokenSplit.open(tmp_path, "train")
    np.save(tmp_path / "train.offsets.npy", np.zeros(2, dtype=np.float64))
    with pytest.raises(ValueError, match="float64"):
        TokenSplit.open(tmp_path, "train")
    np.save(tmp_path / "train.offsets.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        TokenSplit.open(tmp_path, "train")
