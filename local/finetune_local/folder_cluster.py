"""FineTunes and Models of a folder, as the gateway expects a cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.cluster import Plural, Verb
from finetune_gateway.kube_errors import KubeError
from finetune_local.admission import admit, change
from finetune_local.objects import Objects, timestamp


class FolderCluster:
    """The `Cluster` of this machine. Its one user may do everything."""

    def __init__(self, objects: Objects, namespace: str, gpus: int) -> None:
        """gpus: of the machine, which each FineTune gets."""
        self._objects = objects
        self._namespace = namespace
        self._gpus = gpus

    async def get(self, caller: Caller, plural: Plural, name: str) -> JsonObject:
        found = self._objects.get(plural, name)
        if found is None:
            raise KubeError(404, f'{plural} "{name[:200]}" not found', reason="NotFound")
        return found

    async def list(
        self, caller: Caller, plural: Plural, *, label_selector: str = ""
    ) -> list[JsonObject]:
        key, _, value = label_selector.partition("=")
        return [
            obj
            for obj in self._objects.list(plural)
            if not key or obj["metadata"].get("labels", {}).get(key) == value
        ]

    async def list_metadata(self, caller: Caller, plural: Plural) -> Sequence[JsonObject]:
        return [{"metadata": obj["metadata"]} for obj in self._objects.list(plural)]

    async def create(self, caller: Caller, plural: Plural, body: JsonObject) -> JsonObject:
        if plural != "finetunes":
            raise KubeError(403, "Models are created by the operator")
        admitted = admit(body, self._gpus)
        metadata = {**admitted["metadata"], "namespace": self._namespace}
        made = {
            "apiVersion": names.API_VERSION,
            "kind": "FineTune",
            **admitted,
            "metadata": metadata,
        }
        try:
            return self._objects.add(plural, made)
        except ValueError as error:
            raise KubeError(409, f"{error} exists already", reason="AlreadyExists") from error

    async def patch(
        self, caller: Caller, plural: Plural, name: str, body: JsonObject
    ) -> JsonObject:
        found = await self.get(caller, plural, name)
        return self._objects.put(plural, change(found, plural, body))

    async def delete(self, caller: Caller, plural: Plural, name: str) -> None:
        found = await self.get(caller, plural, name)
        if not found["metadata"].get("finalizers"):
            self._objects.remove(plural, name)
        elif "deletionTimestamp" not in found["metadata"]:
            metadata = {**found["metadata"], "deletionTimestamp": timestamp()}
            self._objects.put(plural, {**found, "metadata": metadata})

    async def follow(
        self, caller: Caller, plural: Plural, name: str
    ) -> AsyncGenerator[JsonObject | None]:
        found: JsonObject | None = await self.get(caller, plural, name)
        seen = None
        while found is not None:
            if found is not seen:
                seen = found
                yield found
                found = self._objects.get(plural, name)
                continue
            await self._objects.change()
            found = self._objects.get(plural, name)
        yield None

    async def may(self, caller: Caller, verb: Verb, plural: Plural) -> bool:
        return True

    async def is_ready(self) -> bool:
        return True
