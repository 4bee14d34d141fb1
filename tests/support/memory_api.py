"""An API server in memory with the requests of the operator's client, for Models and Jobs.

It can end the operator before or after each write, and commit a write after the client gave up. The
integration tests show that the real API server answers like this.
"""

import contextlib
import copy
import itertools
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from finetune_api.wire import JsonObject
from finetune_operator.core.refusals import Cause
from finetune_operator.kube.client import ApiError, JsonObjects

ITEM = re.compile(r"^(?P<collection>.*/namespaces/[^/]+/[^/]+)/(?P<name>[^/]+)(?P<sub>/status)?$")
TERMINATING = (Cause("NamespaceTerminating", "", ""),)


class OperatorKilledError(BaseException):
    """The operator's process ends: no handler of errors sees it."""


@dataclass(frozen=True)
class Fault:
    """What happens at one write, from 1. when: before, after, or late."""

    write: int
    when: str


class MemoryApi:
    """The objects by their paths. It has the methods of `finetune_operator.kube.client.Client`."""

    def __init__(self) -> None:
        self.objects: dict[str, JsonObject] = {}
        self.is_terminating = False
        self.fault: Fault | None = None
        self.writes: list[str] = []  # method and path
        self.reads: list[str] = []
        self.late: list[Callable[[], object]] = []  # writes that are not committed yet
        self._versions = itertools.count(1)

    # --- the client of the operator ---------------------------------------------------------------

    async def get(self, path: str, **_: str) -> JsonObject:
        self.reads.append(f"GET {path}")
        return copy.deepcopy(self._find(path))

    async def list(self, path: str, **params: str) -> JsonObjects:
        self.reads.append(f"LIST {path}")
        wanted = dict(it.split("=") for it in params.get("labelSelector", "").split(",") if it)
        return [
            copy.deepcopy(obj)
            for key, obj in self.objects.items()
            if key.rpartition("/")[0] == path
            and wanted.items() <= obj["metadata"].get("labels", {}).items()
        ]

    async def pages(self, path: str) -> AsyncIterator[JsonObject]:
        for obj in await self.list(path):
            yield obj

    async def create(self, path: str, body: JsonObject, **params: str) -> JsonObject:
        if params.get("dryRun"):
            return self._check(path, body)
        return self._write("POST", path, lambda: self.add(path, body))

    async def json_patch(self, path: str, body: JsonObjects) -> JsonObject:
        return self._write("PATCH", path, lambda: self._patch(path, body))

    async def delete(self, path: str, body: JsonObject) -> JsonObject:
        return self._write("DELETE", path, lambda: self._delete(path, body))

    # --- everybody else ---------------------------------------------------------------------------

    def add(self, path: str, body: JsonObject) -> JsonObject:
        """Create an object in a collection."""
        made = copy.deepcopy(self._check(path, body))
        number = next(self._versions)
        made["metadata"].setdefault("uid", f"{number:08d}-uid")
        made["metadata"]["resourceVersion"] = str(number)
        self.objects[f"{path}/{made['metadata']['name']}"] = made
        return copy.deepcopy(made)

    def change(self, path: str, change: Callable[[JsonObject], object]) -> None:
        """Change an object, as another client does, if it is there."""
        if path in self.objects:
            change(self.objects[path])
            self._touch(path)

    def remove(self, path: str) -> None:
        """Delete an object that may have finalizers."""
        self.change(path, lambda it: it["metadata"].setdefault("deletionTimestamp", "2026-11-21"))

    def commit_late(self) -> None:
        """Commit the writes whose client gave up."""
        while self.late:
            with contextlib.suppress(ApiError):  # nobody waits for the answer
                self.late.pop(0)()

    # --- how it works -----------------------------------------------------------------------------

    def _write(self, method: str, path: str, commit: Callable[[], JsonObject]) -> JsonObject:
        self.writes.append(f"{method} {path}")
        fault = self.fault
        if fault is None or fault.write != len(self.writes):
            return copy.deepcopy(commit())
        if fault.when == "before":
            raise OperatorKilledError
        if fault.when == "late":
            self.late.append(commit)
            raise ApiError(0, "timeout")
        commit()
        raise OperatorKilledError

    def _find(self, path: str) -> JsonObject:
        if path not in self.objects:
            raise ApiError(404, f"{path} not found")
        return self.objects[path]

    def _check(self, path: str, body: JsonObject) -> JsonObject:
        if self.is_terminating:
            raise ApiError(403, "the namespace is being terminated", causes=TERMINATING)
        if f"{path}/{body['metadata']['name']}" in self.objects:
            raise ApiError(409, "exists")
        return body

    def _patch(self, path: str, body: JsonObjects) -> JsonObject:
        found = ITEM.match(path)
        assert found is not None
        item = f"{found['collection']}/{found['name']}"
        made = copy.deepcopy(self._find(item))
        for step in body:
            *parents, last = step["path"].strip("/").split("/")
            place: Any = made
            for part in parents:
                place = place[part]
            if step["op"] == "test" and place.get(last) != step["value"]:
                raise ApiError(422, f"test of {step['path']} failed")
            if step["op"] == "add":
                place[last] = step["value"]
        self.objects[item] = made
        return self._touch(item)

    def _touch(self, path: str) -> JsonObject:
        meta = self.objects[path]["metadata"]
        meta["resourceVersion"] = str(next(self._versions))
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            return self.objects.pop(path)
        return self.objects[path]

    def _delete(self, path: str, body: JsonObject) -> JsonObject:
        meta = self._find(path)["metadata"]
        if body.get("preconditions", {}).get("uid", meta["uid"]) != meta["uid"]:
            raise ApiError(409, "another UID")
        return self.objects.pop(path)
