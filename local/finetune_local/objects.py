"""The objects of the cluster: JSON files in a folder, and the same values in memory.

Only the event loop changes them. A value is never changed in place: each write has a new version.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args
from uuid import uuid4

from finetune_api.wire import JsonObject, parse_json
from finetune_operator.core.plan import stamp

Plural = Literal["finetunes", "models", "jobs"]
PLURALS: tuple[Plural, ...] = get_args(Plural)

logger = logging.getLogger(__name__)


class Objects:
    """The objects by kind and name."""

    def __init__(self, folder: Path) -> None:
        """Read the folder, which is created. A file that is not an object is logged, and kept."""
        self._folder = folder
        self._found: dict[Plural, dict[str, JsonObject]] = {plural: {} for plural in PLURALS}
        self._changed = asyncio.Event()
        self._version = 0
        for plural in PLURALS:
            (folder / plural).mkdir(parents=True, exist_ok=True)
            for path in sorted((folder / plural).glob("*.json")):
                found = _read(path)
                if found is not None:
                    self._found[plural][path.stem] = found
                    self._version = max(self._version, version_of(found))

    def get(self, plural: Plural, name: str) -> JsonObject | None:
        return self._found[plural].get(name)

    def list(self, plural: Plural) -> Iterable[JsonObject]:
        return tuple(self._found[plural].values())

    def add(self, plural: Plural, body: JsonObject) -> JsonObject:
        """Add a new object with the metadata that an API server gives it.

        Raises ValueError if the name is taken.
        """
        if body["metadata"]["name"] in self._found[plural]:
            raise ValueError(body["metadata"]["name"])
        metadata = {
            **body["metadata"],
            "uid": str(uuid4()),
            "generation": 1,
            "creationTimestamp": timestamp(),
        }
        return self.put(plural, {**body, "metadata": metadata})

    def put(self, plural: Plural, obj: JsonObject) -> JsonObject:
        """Write an object; returns it with its new version."""
        self._version += 1
        metadata = {**obj["metadata"], "resourceVersion": str(self._version)}
        written = {**obj, "metadata": metadata}
        path = self._path(plural, metadata["name"])
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(written, indent=1))
            file.flush()
            os.fsync(file.fileno())  # a machine that loses power keeps this version or the last one
        part.replace(path)
        self._found[plural][metadata["name"]] = written
        self.notify()
        return written

    def remove(self, plural: Plural, name: str) -> None:
        """Remove an object. One that is gone is not an error."""
        if self._found[plural].pop(name, None) is not None:
            self._path(plural, name).unlink(missing_ok=True)
            self.notify()

    def notify(self) -> None:
        """Wake those that wait for a change, also of something that is not an object."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def _path(self, plural: Plural, name: str) -> Path:
        return self._folder / plural / f"{name}.json"


def version_of(obj: JsonObject) -> int:
    return int(obj["metadata"].get("resourceVersion", 0))


def timestamp() -> str:
    """Now, as Kubernetes writes it."""
    return stamp(datetime.now(UTC))


def _read(path: Path) -> JsonObject | None:
    try:
        found: JsonObject = parse_json(path.read_bytes())
        if found["metadata"]["name"] != path.stem or not isinstance(found["spec"], dict):
            raise ValueError("it has another name than its file, or no spec")
        version_of(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is ignored: %s", os.fspath(path), error)
        return None
    return found
