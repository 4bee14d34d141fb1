"""One kind of custom resource in one namespace: get, list, create, patch, delete, watch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from finetune_api.names import GROUP, VERSION
from finetune_api.wire import JsonObject
from finetune_cli.cluster.errors import ApiError

if TYPE_CHECKING:
    from finetune_cli.cluster.connection import Cluster


MERGE_PATCH = "application/merge-patch+json"
PAGE = 500  # objects in one answer of a list
WATCH_SECONDS = 45  # then the server ends the watch, so that silence is never the network's
SILENCE_SECONDS = 60.0
FIELD_MANAGER = "finetune-cli"


class Resource:
    """Objects of one kind. Every method raises ApiError or UnreachableError."""

    def __init__(self, cluster: Cluster, plural: str, kind: str) -> None:
        self._cluster = cluster
        self._plural = plural
        self.kind = kind

    def get(self, name: str) -> JsonObject:
        return _tidy(self._cluster.request("GET", self._path(name)))

    def list(self, *, everywhere: bool = False, selector: str = "") -> list[JsonObject]:
        """In the namespace, or in all; oldest first, then by name."""
        query: dict[str, str | int | bool] = {"limit": PAGE}
        if selector:
            query["labelSelector"] = selector
        path = f"/apis/{GROUP}/{VERSION}/{self._plural}" if everywhere else self._path()
        items: list[JsonObject] = []
        while True:
            page = self._cluster.request("GET", path, query=query)
            items += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                break
            query["continue"] = more
        # a list leaves out what each of its items is
        kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": self.kind}
        return sorted(({**kind, **_tidy(item)} for item in items), key=_age_and_name)

    def create(self, manifest: JsonObject, *, dry_run: bool = False) -> JsonObject:
        """As the API server stored it; dry_run: as it would have. An unknown field is an error."""
        query: dict[str, str | int | bool] = {
            "fieldManager": FIELD_MANAGER,
            "fieldValidation": "Strict",
        }
        if dry_run:
            query["dryRun"] = "All"
        return _tidy(self._cluster.request("POST", self._path(), query=query, body=manifest))

    def patch_spec(self, name: str, **fields: Any) -> JsonObject:
        """A merge patch of these fields of the spec and nothing else."""
        found = self._cluster.request(
            "PATCH",
            self._path(name),
            query={"fieldManager": FIELD_MANAGER},
            body={"spec": fields},
            content_type=MERGE_PATCH,
        )
        return _tidy(found)

    def delete(self, name: str, uid: str) -> None:
        """Only the object with this UID: not one that was made anew under its name."""
        self._cluster.request("DELETE", self._path(name), body={"preconditions": {"uid": uid}})

    def watch(self, name: str, version: str) -> Iterator[tuple[str, JsonObject]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) after `version`, until the server ends
        it. Raises ApiError with status 410 where that version is forgotten."""
        query: dict[str, str | int | bool] = {
            "watch": True,
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "allowWatchBookmarks": True,
            "timeoutSeconds": WATCH_SECONDS,
        }
        with self._cluster.lines(self._path(), query, SILENCE_SECONDS) as lines:
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    answer = event["object"]
                    message = str(answer.get("message", "the watch failed"))
                    raise ApiError(message, "", int(answer.get("code", 500)), answer)
                yield event["type"], event["object"]

    def _path(self, name: str = "") -> str:
        namespace = quote(self._cluster.namespace, safe="")
        base = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{self._plural}"
        return f"{base}/{quote(name, safe='')}" if name else base


def _tidy(item: JsonObject) -> JsonObject:
    """Without who wrote which field: kubectl hides it too."""
    item["metadata"].pop("managedFields", None)
    return item


def _age_and_name(item: JsonObject) -> tuple[str, str]:
    meta = item["metadata"]
    return meta.get("creationTimestamp", ""), meta["name"]
