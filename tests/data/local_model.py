"""A base model in a folder, and a pod that gets it through the cache: `python -m` this file."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from finetune_data.models.cache.model_cache import ModelCache
from finetune_data.models.cache.volume import CacheVolume
from finetune_data.models.remote_model import RemoteFile, RemoteModel
from finetune_data.models.safetensors_files import read_header
from finetune_storage.manifests import sha256
from finetune_storage.progress import ProgressCallback
from tests.data.builders import safetensors_bytes

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write_shards(folder: Path, numbers: int = 1000, names: Sequence[str] = SHARDS) -> Path:
    """Complete safetensors files of 4 bytes a number, and a header."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(safetensors_bytes(numbers))
    return folder


class LocalModel(RemoteModel):
    """Records each fetched file in `fetched`, a file next to the folder."""

    def __init__(self, source: Path, *, version: str = "1", has_digests: bool = False) -> None:
        self.source = source
        self.location = f"local {source.name}"
        self.fetched = source.with_name(f"{source.name}.fetched")
        self.files = {
            path.name: RemoteFile(
                *(path.name, path.stat().st_size, version), sha256(path) if has_digests else None
            )
            for path in sorted(source.iterdir())
        }

    @property
    def revision(self) -> str:
        return ",".join(sorted({file.version for file in self.files.values()}))

    def space_needed(self) -> int:
        return sum(file.size for file in self.files.values())

    def fetch(
        self, names: Collection[str], folder: Path, progress: ProgressCallback | None = None
    ) -> Path:
        for name in names:
            with self.fetched.open("a") as log:
                log.write(f"{name}\n")
            self.wait(name)
            shutil.copyfile(self.source / name, folder / name)
        return folder

    def read_header(self, name: str) -> tuple[bytes, int]:
        return read_header(self.source / name)

    def wait(self, name: str) -> None:
        """Called before a file arrives."""

    def fetched_names(self) -> list[str]:
        return sorted(self.fetched.read_text().split()) if self.fetched.exists() else []


class GatedModel(LocalModel):
    """Fetches the second shard only after the file `<source>.gate` exists."""

    def wait(self, name: str) -> None:
        gate = self.source.with_name(f"{self.source.name}.gate")
        end = time.monotonic() + 60
        while name == SHARDS[1] and not gate.exists():
            assert time.monotonic() < end
            time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("source", type=Path)
    options = parser.parse_args()
    model = GatedModel(options.source)
    cache = ModelCache(
        CacheVolume.open(options.cache),
        waiting=lambda *_: print("waiting", flush=True),
        poll_seconds=0.02,
    )
    print("starting", flush=True)
    print(cache.provide(model, model.weights), flush=True)
    sys.stdin.read()  # uses the model until the test closes its standard input


if __name__ == "__main__":
    main()
