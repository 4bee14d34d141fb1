"""What the endpoints need of a cluster. On a laptop, a folder implements it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

from finetune_api.wire import JsonObject
from finetune_gateway.kube.caller import Caller

Plural = Literal["finetunes", "models"]
Verb = Literal["create", "get", "list", "watch", "patch", "delete"]


class Cluster(Protocol):
    """FineTunes and Models of one namespace. Every method raises KubeError."""

    async def get(self, caller: Caller, plural: Plural, name: str) -> JsonObject: ...

    async def list(
        self, caller: Caller, plural: Plural, *, label_selector: str = ""
    ) -> list[JsonObject]:
        """All objects, in no particular order."""
        ...

    async def list_metadata(self, caller: Caller, plural: Plural) -> Sequence[JsonObject]:
        """The same with nothing but the metadata of each object."""
        ...

    async def create(self, caller: Caller, plural: Plural, body: JsonObject) -> JsonObject: ...

    async def patch(
        self, caller: Caller, plural: Plural, name: str, body: JsonObject
    ) -> JsonObject:
        """body: a JSON merge patch."""
        ...

    async def delete(self, caller: Caller, plural: Plural, name: str) -> None: ...

    def follow(
        self, caller: Caller, plural: Plural, name: str
    ) -> AsyncGenerator[JsonObject | None]:
        """The object now, and after each change; None at the end, once it has been deleted.

        A watch that ends or expires is opened again. A refusal raises KubeError, also one with
        status 404 if there is no object at the start. An API server that does not answer is asked
        again, for as long as the caller listens. Close the generator at the end.
        """
        ...

    async def may(self, caller: Caller, verb: Verb, plural: Plural) -> bool:
        """Whether the caller has the right. An answer is remembered for at most ten seconds."""
        ...

    async def is_ready(self) -> bool:
        """Whether the API server answers."""
        ...
