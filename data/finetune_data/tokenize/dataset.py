"""The tokenized dataset in S3: written once by a prepare Job, read by every attempt.

Its address is a digest of its inputs, so that a second FineTune on the same files starts at once.

A dataset has three arrays for each split (`train`, `validation`) and one manifest, written last:

    <split>.tokens.npy    int32, every token of every example, end to end
    <split>.roles.npy     uint8, the role of each token: 0 no loss, 1 prompt, 2 completion
    <split>.offsets.npy   int64, n + 1 positions: example i is tokens[offsets[i]:offsets[i + 1]]
    manifest.json         sizes, digests, and the inputs

The arrays are memory-mapped, so a dataset can be larger than the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.tasks import Classification
from finetune_api.uris import S3Uri
from finetune_api.wire import Stored
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.read.sources import InputFile
from finetune_data.tokenize.encoded import How
from finetune_storage.errors import StorageError
from finetune_storage.manifests import FileEntry, find_damage, to_bytes
from finetune_storage.progress import ProgressCallback
from finetune_storage.s3 import Storage

FORMAT = 3  # of the contents; a dataset of another format is tokenized again
TRAIN = "train"
VALIDATION = "validation"

Tokens = npt.NDArray[np.int32]
Roles = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)

EMPTY_NPY_BYTES = 128  # a header and nothing else


class SplitCounts(Stored):
    """The counts of a split."""

    examples: int
    tokens: int
    skipped_lines: int = 0
    lines: int = 0  # that are not empty
    longest_example: int = 0  # tokens
    prompt_tokens: int = 0  # the tokens of prompts, which have the prompt loss weight


class LearnedEnd(Stored):
    """A token that ends answers, which the model learns to write."""

    token: int
    text: str  # for people
    answers: int  # that end with it
    how: How


class FileShare(Stored):
    """One of several training files, and its part of an epoch."""

    input: str  # its key in the inputs of the source
    weight: float | None = None
    lines: int  # that are not empty
    skipped_lines: int = 0
    examples: int
    epoch_examples: int  # with repeats: the examples of an epoch that are from this file


class DatasetSource(Stored):
    """The inputs that determine every byte of a dataset: equal sources make equal arrays."""

    format: int = FORMAT
    tokenizer_sha256: str
    context_length: int  # tokens; longer examples are not in it
    data_tolerance: float = 0
    classification: Classification | None = None  # the settings that the files were checked against
    # By split. Several training files are `train-0`, `train-1`, ..., in the order of the spec.
    inputs: dict[str, InputFile]
    weights: list[float] | None = None  # of several training files; None: each example once

    def key(self, run: str) -> str:
        """The name of the dataset in S3: equal inputs have equal keys.

        An ETag identifies the bytes of a file, and else their digest. run: becomes a part of the
        key of files that have neither.
        """
        inputs = without_known_digests(self.inputs)
        has_all = all(known.etag or known.sha256 for known in inputs.values())
        text = f"{self.replace(inputs=inputs).to_json()}{'' if has_all else run}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def without_known_digests(inputs: Mapping[str, InputFile]) -> dict[str, InputFile]:
    """The inputs as they are known before their bytes are read: ETags, and digests without ETag."""
    return {
        name: known.replace(sha256="") if known.etag else known for name, known in inputs.items()
    }


class DatasetManifest(Stored):
    """`dataset/manifest.json`."""

    kind: Literal["dataset"] = "dataset"
    source: DatasetSource
    splits: dict[str, SplitCounts]
    advice: list[str] = Field(default_factory=list)  # of the checks, about the data
    data_kind: str | None = None  # lint.facts.Kind of the training file
    classes: int | None = None  # distinct completions of a classification
    separator: str | None = None  # the common ending of the prompts of the training file
    ends: list[LearnedEnd] = Field(
        default_factory=list
    )  # of the training split, most frequent first
    training_files: list[FileShare] | None = None  # None: a single file
    files: list[FileEntry]


@dataclass(frozen=True)
class TokenSplit:
    """The examples of one split, memory-mapped; indexing reads only what it returns."""

    tokens: Tokens
    roles: Roles
    offsets: Offsets

    @classmethod
    def open(cls, folder: Path, split: str) -> TokenSplit:
        """Open the arrays. Raises ValueError if they do not belong together."""
        tokens = _memory_map(folder / f"{split}.tokens.npy", np.int32)
        roles = _memory_map(folder / f"{split}.roles.npy", np.uint8)
        offsets = _memory_map(folder / f"{split}.offsets.npy", np.int64)
        if (
            len(offsets) == 0
            or offsets[0] != 0
            or not len(tokens) == len(roles) == offsets[-1]
            or bool(np.any(np.diff(offsets) < 0))
        ):
            raise ValueError(f"the arrays of {split} do not belong together")
        return cls(tokens, roles, offsets)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Offsets:
        """The number of tokens of each example, shape (n,), int64."""
        return np.diff(self.offsets)

    def example(self, index: int) -> tuple[Tokens, Roles]:
        """Tokens (int32) and roles (uint8) of one example, both of shape (its length,).

        Views of the file: copy before changing. Raises IndexError outside 0..n-1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.tokens[start:end], self.roles[start:end]


@dataclass(frozen=True)
class Dataset:
    """A complete, checked dataset on this machine."""

    train: TokenSplit
    validation: TokenSplit | None
    manifest: DatasetManifest

    @property
    def longest(self) -> int:
        """The length of the longest example, in tokens."""
        splits = [self.train, *([self.validation] if self.validation else [])]
        return int(max(split.lengths.max() for split in splits))


def read_manifest(uri: S3Uri, storage: Storage) -> DatasetManifest | None:
    """The manifest of the dataset at `uri`; None if there is no complete dataset."""
    try:
        return DatasetManifest.model_validate_json(storage.read_bytes(uri.child(MANIFEST)))
    except StorageError as error:
        if error.failure.code == Reason.DATA_NOT_FOUND:
            return None
        raise
    except ValidationError:
        return None


def write_dataset(
    folder: Path,
    uri: S3Uri,
    storage: Storage,
    manifest: DatasetManifest,
    progress: ProgressCallback | None = None,
) -> None:
    """Upload the arrays that `manifest` lists from `folder`, and then the manifest."""
    total = sum(entry.size for entry in manifest.files)
    before = 0
    for entry in manifest.files:
        done = before

        def count(bytes_done: int, _: int, done: int = done) -> None:
            if progress is not None:
                progress(done + bytes_done, total)

        storage.upload_file(folder / entry.path, uri.child(entry.path), count)
        before += entry.size
    storage.write_bytes(uri.child(MANIFEST), to_bytes(manifest))


def fetch_dataset(
    uri: S3Uri, folder: Path, storage: Storage, progress: ProgressCallback | None = None
) -> Dataset:
    """Download the dataset at `uri` into `folder`, check every byte, and open it.

    Raises StorageError (DataNotFound) if there is no complete dataset. Raises DataError if a file
    differs from its manifest (InternalError, because another attempt can succeed).
    """
    manifest = read_manifest(uri, storage)
    if manifest is None:
        raise StorageError(failures.no_dataset(uri))
    folder.mkdir(parents=True, exist_ok=True)
    storage.download_prefix(uri, folder, [entry.path for entry in manifest.files], progress)
    damage = find_damage(folder, manifest.files)
    if damage is not None:
        raise DataError(failures.damaged_dataset(uri, damage))
    return open_dataset(folder, manifest)


def open_dataset(folder: Path, manifest: DatasetManifest) -> Dataset:
    """Open a dataset whose files are in `folder` and were checked."""
    splits = {name: TokenSplit.open(folder, name) for name in manifest.splits}
    return Dataset(splits[TRAIN], splits.get(VALIDATION), manifest)


def _memory_map(path: Path, dtype: type[Number]) -> npt.NDArray[Number]:
    """Map an array read-only. An array without elements cannot be mapped, so it is loaded."""
    mode: Literal["r"] | None = "r" if path.stat().st_size > EMPTY_NPY_BYTES else None
    array: npt.NDArray[Number] = np.load(path, mmap_mode=mode, allow_pickle=False)
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"{path.name} holds {array.dtype} of shape {array.shape}")
    return array
