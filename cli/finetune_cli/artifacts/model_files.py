"""Downloads the files of a published model and verifies them against its manifest."""

from __future__ import annotations

import glob
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.layout import MANIFEST
from finetune_cli.artifacts.s3 import open_storage, parse_address
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import size

if TYPE_CHECKING:
    from finetune_api.uris import S3Uri
    from finetune_storage.manifests import FileEntry, Manifest
    from finetune_storage.s3 import Storage

ADAPTER = "adapter/"


@dataclass(frozen=True)
class PublishedModel:
    """A model in S3. manifest: the bytes of its manifest.json; files: the files it lists."""

    name: str
    uri: S3Uri
    manifest: bytes
    files: Sequence[FileEntry]
    storage: Storage

    def download(self, files: Sequence[FileEntry], destination: Path, screen: Screen) -> int:
        """Download `files` and the manifest; returns their size in bytes.

        `destination` appears after all files are verified. Raises CommandError if the disk has too
        little space or a file does not match the manifest.
        """
        from finetune_storage.manifests import find_damage

        destination.parent.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(destination.parent).free, sum(it.size for it in files)
        if needed > free:
            raise CommandError(
                f"{self.name} needs {size(needed)}, but {destination.parent.resolve()} has only "
                f"{size(free)} free",
                "choose a folder on another disk",
            )
        # in the same parent folder, so that the last step is a rename
        prefix = f".{destination.name}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=destination.parent) as folder:
            part = Path(folder) / "model"
            patterns = [glob.escape(entry.path) for entry in files]
            with screen.transfer(f"downloading {self.name}") as progress:
                self.storage.download_prefix(self.uri, part, patterns, progress)
            if damage := find_damage(part, files):
                raise CommandError(f"the download from {self.uri} is damaged: {damage}", "retry")
            (part / MANIFEST).write_bytes(self.manifest)
            if destination.exists():
                destination.rmdir()
            part.rename(destination)
        return needed


def open_model(address: str, digest: str | None, name: str) -> PublishedModel:
    """Read the manifest of the model at `address` and compare it with its expected SHA-256."""
    uri, storage = parse_address(address), open_storage()
    data = storage.read_bytes(uri.child(MANIFEST))
    manifest = _checked_manifest(data, digest, str(uri))
    return PublishedModel(name, uri, data, manifest.files, storage)


def _checked_manifest(data: bytes, digest: str | None, where: str) -> Manifest:
    from finetune_storage.manifests import Manifest

    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise CommandError(
            f"the manifest in {where} differs from the published one: the files were changed",
            "restore the files, or train the model again",
        )
    manifest = Manifest.parse_files(data)
    if manifest is None:
        raise CommandError(
            f"{where} contains no published model: its manifest.json has an unknown format"
        )
    return manifest
