"""One kind of custom resource in one namespace: get, list, create, patch, delete, watch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol
from urllib.parse import quote

from finetune_api.names import GROUP, VERSION
from finetune_api.wire import JsonObject
from finetune_cli.cluster.errors import ApiError

Query = Mapping[str, str | int | bool]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
PAGE = 500  # objects in one page of a list
WATCH_SECONDS = 45  # the server ends a watch after this time, so a longer silence is an error
SILENCE_SECONDS = 60.0
FIELD_MANAGER = "finetune-cli"


class Requester(Protocol):
    """The part of a cluster connection that a Resource needs."""

    @property
    def namespace(self) -> str: ...

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: JsonObject | None = None,
        content_type: str = JSON,
    ) -> Any: ...

    def lines(
        self, path: str, query: Query, seconds: float
    ) -> AbstractContextManager[Iterator[bytes]]: ...


class Resource:
    """Objects of one kind. Every method raises ApiError or UnreachableError."""

    def __init__(self, requester: Requester, plural: str, kind: str) -> None:
        self._requester = requester
        self._plural = plural
        self.kind = kind

    def get(self, name: str) -> JsonObject:
        return _without_managed_fields(self._requester.request("GET", self._path(name)))

    def list(self, *, all_namespaces: bool = False, selector: str = "") -> list[JsonObject]:
        """The objects of the namespace, or of all namespaces; oldest first, then by name."""
        query: dict[str, str | int | bool] = {"limit": PAGE}
        if selector:
            query["labelSelector"] = selector
        path = f"/apis/{GROUP}/{VERSION}/{self._plural}" if all_namespaces else self._path()
        items: list[JsonObject] = []
        while True:
            page = self._requester.request("GET", path, query=query)
            items += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                break
            query["continue"] = more
        # the items of a list have no apiVersion and kind
        kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": self.kind}
        complete = ({**kind, **_without_managed_fields(item)} for item in items)
        return sorted(complete, key=_age_and_name)

    def create(self, manifest: JsonObject, *, dry_run: bool = False) -> JsonObject:
        """The object as the API server stored it, or would store it. Unknown fields are errors."""
        query: dict[str, str | int | bool] = {
            "fieldManager": FIELD_MANAGER,
            "fieldValidation": "Strict",
        }
        if dry_run:
            query["dryRun"] = "All"
        created = self._requester.request("POST", self._path(), query=query, body=manifest)
        return _without_managed_fields(created)

    def patch_spec(self, name: str, **fields: Any) -> JsonObject:
        """Merge-patch these fields of the spec and nothing else."""
        patched = self._requester.request(
            "PATCH",
            self._path(name),
            query={"fieldManager": FIELD_MANAGER},
            body={"spec": fields},
            content_type=MERGE_PATCH,
        )
        return _without_managed_fields(patched)

    def delete(self, name: str, uid: str) -> None:
        """Delete only the object with this UID, not a new one with the same name."""
        self._requester.request("DELETE", self._path(name), body={"preconditions": {"uid": uid}})

    def watch(self, name: str, version: str) -> Iterator[tuple[str, JsonObject]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) after `version`, until the server ends
        the watch. Raises ApiError with status 410 if the server no longer has that version."""
        query: dict[str, str | int | bool] = {
            "watch": True,
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "allowWatchBookmarks": True,
            "timeoutSeconds": WATCH_SECONDS,
        }
        with self._requester.lines(self._path(), query, SILENCE_SECONDS) as lines:
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    answer = event["object"]
                    message = str(answer.get("message", "the watch failed"))
                    raise ApiError(message, "", int(answer.get("code", 500)), answer)
                yield event["type"], event["object"]

    def _path(self, name: str = "") -> str:
        namespace = quote(self._requester.namespace, safe="")
        base = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{self._plural}"
        return f"{base}/{quote(name, safe='')}" if name else base


def _without_managed_fields(item: JsonObject) -> JsonObject:
    """The object without `managedFields`, which kubectl hides as well."""
    item["metadata"].pop("managedFields", None)
    return item


def _age_and_name(item: JsonObject) -> tuple[str, str]:
    meta = item["metadata"]
    return meta.get("creationTimestamp", ""), meta["name"]
