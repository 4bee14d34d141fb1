"""The files of a base model at its source, before they are downloaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from finetune_storage.progress import ProgressCallback

WEIGHTS = "model*.safetensors"


@dataclass(frozen=True)
class RemoteFile:
    """One file, which the source lists."""

    name: str  # the path in the model's folder
    size: int  # bytes
    version: str  # differs for every content: an ETag, a digest, or a commit
    sha256: str | None = None  # hexadecimal, if the source publishes it


class RemoteModel(ABC):
    """The wanted files of a model. Their names were checked: they stay below a folder."""

    location: str  # the address, with the endpoint that it was resolved at
    names: list[str]  # all files at the source, wanted or not
    files: Mapping[str, RemoteFile]

    @property
    @abstractmethod
    def revision(self) -> str:
        """Differs for every content of the model: a commit, or a digest. It may read from S3."""

    @property
    def is_cacheable(self) -> bool:
        """Whether the model cache may keep the weights."""
        return True

    @property
    def weights(self) -> list[RemoteFile]:
        """The files with the weights, by name."""
        found = (file for name, file in self.files.items() if fnmatchcase(name, WEIGHTS))
        return sorted(found, key=lambda file: file.name)

    @abstractmethod
    def space_needed(self) -> int:
        """The bytes that a download of all files adds to the folder."""

    @abstractmethod
    def fetch(
        self, names: Collection[str], folder: Path, progress: ProgressCallback | None = None
    ) -> Path:
        """Download these files; returns their folder, which is `folder` for a cacheable model.

        Raises BaseModelError or StorageError, also for a file that changed after it was listed.
        """

    @abstractmethod
    def read_header(self, name: str) -> tuple[bytes, int]:
        """The JSON header of a weight file, and the bytes that follow it, which are not read.

        Raises ValueError, in words, for a file without a header; BaseModelError or StorageError.
        """
