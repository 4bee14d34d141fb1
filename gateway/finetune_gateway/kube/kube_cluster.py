"""FineTunes and Models of one namespace, on a Kubernetes API server, as each caller."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_gateway.kube.api_session import OBJECT_BYTES, ApiSession
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.cluster import Plural, Verb
from finetune_gateway.kube.following import follow
from finetune_gateway.kube.rights import Rights
from finetune_gateway.kube.server import Server
from finetune_gateway.kube_errors import KubeError

PAGE, PAGE_BYTES = 250, 64 * 2**20  # objects in one answer to a list, and its size
PAGES_AT_MOST = 40
SILENT_SECONDS = 15  # after the end of a watch, after which its connection is lost
STRICT = {"fieldValidation": "Strict"}  # an unknown field is an error, and never dropped
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
METADATA_ONLY = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
OBJECT_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


class KubeCluster:
    """The `Cluster` of a real API server. Use it as an asynchronous context manager."""

    def __init__(
        self,
        server: Server,
        namespace: str,
        *,
        timeout_seconds: float = 10,
        review_seconds: float = 10,
    ) -> None:
        """timeout_seconds: of one request. review_seconds: how long `may` remembers an answer."""
        if _NAMESPACE.fullmatch(namespace) is None:
            raise ValueError(f"{namespace!r} is not the name of a namespace")
        self._namespace = namespace
        self._session = ApiSession(server, timeout_seconds)
        self._rights = Rights(review_seconds)

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.__aexit__(kind, error, trace)

    async def get(self, caller: Caller, plural: Plural, name: str) -> JsonObject:
        return await self._session.request(caller, "GET", self._path(plural, name))

    async def list(
        self, caller: Caller, plural: Plural, *, label_selector: str = ""
    ) -> list[JsonObject]:
        selector = {"labelSelector": label_selector} if label_selector else {}
        return [item async for item in self._items(caller, plural, selector, {})]

    async def list_metadata(self, caller: Caller, plural: Plural) -> Sequence[JsonObject]:
        return [item async for item in self._items(caller, plural, {}, METADATA_ONLY)]

    async def _items(
        self, caller: Caller, plural: Plural, selector: dict[str, str], headers: dict[str, str]
    ) -> AsyncGenerator[JsonObject]:
        params = {"limit": str(PAGE), **selector}
        for _ in range(PAGES_AT_MOST):
            page = await self._session.request(
                caller,
                "GET",
                self._path(plural),
                headers=headers,
                params=params,
                most_bytes=PAGE_BYTES,
            )
            items, metadata = page.get("items", ""), page.get("metadata")
            items = [] if items is None else items  # as in a list of the metadata of no object
            if not isinstance(items, list) or not isinstance(metadata, dict):
                raise KubeError(0, "An answer of the API server is not a list.")
            for item in items:
                if isinstance(item, dict):
                    yield item
            params["continue"] = str(metadata.get("continue") or "")
            if not params["continue"]:
                return
        raise KubeError(0, f"The namespace has more than {PAGE * PAGES_AT_MOST:,} {plural}.")

    async def create(self, caller: Caller, plural: Plural, body: JsonObject) -> JsonObject:
        return await self._session.request(
            caller, "POST", self._path(plural), params=STRICT, body=body
        )

    async def patch(
        self, caller: Caller, plural: Plural, name: str, body: JsonObject
    ) -> JsonObject:
        return await self._session.request(
            caller,
            "PATCH",
            self._path(plural, name),
            params=STRICT,
            body=body,
            headers=MERGE_PATCH,
        )

    async def delete(self, caller: Caller, plural: Plural, name: str) -> None:
        await self._session.request(caller, "DELETE", self._path(plural, name))

    def follow(
        self, caller: Caller, plural: Plural, name: str
    ) -> AsyncGenerator[JsonObject | None]:
        self._path(plural, name)  # checks the name
        return follow(_Followed(self._session, caller, self._path(plural), name))

    async def may(self, caller: Caller, verb: Verb, plural: Plural) -> bool:
        question = (caller.fingerprint, verb, plural)
        known = self._rights.find(question)
        if known is not None:
            return known
        attributes = {
            "namespace": self._namespace,
            "verb": verb,
            "group": names.GROUP,
            "resource": plural,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self._session.request(caller, "POST", REVIEWS, body=review)
        status = answer.get("status")
        is_allowed = isinstance(status, dict) and status.get("allowed") is True
        self._rights.remember(question, is_allowed)
        return is_allowed

    async def is_ready(self) -> bool:
        return await self._session.answers("/readyz")

    def _path(self, plural: Plural, name: str | None = None) -> str:
        collection = f"/apis/{names.API_VERSION}/namespaces/{self._namespace}/{plural}"
        if name is None:
            return collection
        if OBJECT_NAME.fullmatch(name) is None:
            raise KubeError(404, f"No object has the name {name[:63]!r}.", reason="NotFound")
        return f"{collection}/{name}"


class _Followed:
    """The requests about one object, for `follow`."""

    def __init__(self, session: ApiSession, caller: Caller, path: str, name: str) -> None:
        """path: of the collection."""
        self._session = session
        self._caller = caller
        self._path = path
        self._selector = {"fieldSelector": f"metadata.name={name}"}

    async def list(self) -> JsonObject:
        return await self._session.request(
            self._caller, "GET", self._path, params=self._selector, most_bytes=2 * OBJECT_BYTES
        )

    def watch(self, version: str, seconds: int) -> AsyncGenerator[JsonObject]:
        params = {
            **self._selector,
            "watch": "1",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "allowWatchBookmarks": "true",
        }
        return self._session.stream(self._caller, self._path, params, seconds + SILENT_SECONDS)
