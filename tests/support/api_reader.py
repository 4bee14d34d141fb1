"""Requests of tests that repeat many times, without a process of kubectl for each."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import config

from finetune_api.wire import JsonObject

DISCOVERY = "application/json;as=APIGroupDiscoveryList;g=apidiscovery.k8s.io;v=v2"
MERGE_PATCH = "application/merge-patch+json"
SECONDS = 120


class RefusedError(Exception):
    """An error of the API server, as kubectl prints it."""


class Resource:
    """A kind that the API server serves in one version."""

    def __init__(self, group: str, version: str, found: JsonObject) -> None:
        self.api_version = f"{group}/{version}" if group else version
        self.kind = found["responseKind"]["kind"]
        self._folder = f"/apis/{self.api_version}" if group else f"/api/{version}"
        self._plural = found["resource"]
        self._is_namespaced = found["scope"] == "Namespaced"
        known = {self._plural, found.get("singularResource", ""), *found.get("shortNames", [])}
        self.names = {name for name in known if name} | {f"{self._plural}.{group}"}
        self.full_name = f"{self._plural}.{version}.{group}"

    def path(self, namespace: str) -> str:
        within = f"/namespaces/{namespace}" if self._is_namespaced else ""
        return f"{self._folder}{within}/{self._plural}"


class ApiReader:
    """Reads objects, and writes statuses, with the credentials of one kubeconfig."""

    def __init__(self, kubeconfig: str) -> None:
        self._client = config.new_client_from_config(kubeconfig)
        self._resources: dict[str, Resource] = {}

    def get(self, kind: str, name: str, namespace: str) -> JsonObject:
        return _shown(self._request("GET", f"{self._resource(kind).path(namespace)}/{name}"))

    def list(self, kind: str, selector: str, namespace: str) -> list[JsonObject]:
        resource = self._resource(kind)
        query = [("labelSelector", selector)] if selector else []
        items = self._request("GET", resource.path(namespace), query)["items"]
        known = {"apiVersion": resource.api_version, "kind": resource.kind}
        return [known | _shown(item) for item in items]

    def patch_status(self, kind: str, name: str, status: JsonObject, namespace: str) -> None:
        path = f"{self._resource(kind).path(namespace)}/{name}/status"
        self._request("PATCH", path, [("fieldManager", "kubectl-patch")], {"status": status})

    def _resource(self, kind: str) -> Resource:
        if kind not in self._resources:  # also after a CRD was created
            self._resources = self._discover()
        if kind not in self._resources:
            raise RefusedError(f'the server does not have a resource type "{kind}"')
        return self._resources[kind]

    def _discover(self) -> dict[str, Resource]:
        """By each name. As for kubectl, the core group wins, and then the order of the server."""
        found: dict[str, Resource] = {}
        for folder in ("/api", "/apis"):
            for group in self._request("GET", folder, accept=DISCOVERY)["items"]:
                name = group["metadata"].get("name", "")
                for place, served in enumerate(group["versions"]):
                    for item in served.get("resources", []):
                        resource = Resource(name, served["version"], item)
                        found[resource.full_name] = resource
                        if place == 0:
                            found = dict.fromkeys(resource.names, resource) | found
        return found

    def _request(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        body: JsonObject | None = None,
        accept: str = "application/json",
    ) -> Any:
        headers = {"Accept": accept} | ({"Content-Type": MERGE_PATCH} if body else {})
        request = self._client.param_serialize(
            *(method, path),
            query_params=query,
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=SECONDS)
            data = answer.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RefusedError(f"The connection to the server was refused: {error}") from error
        if answer.status >= 300:
            raise RefusedError(_message(data))
        return json.loads(data)


def _shown(obj: JsonObject) -> JsonObject:
    """Without the managed fields, as kubectl prints it."""
    obj["metadata"].pop("managedFields", None)
    return obj


def _message(data: bytes) -> str:
    try:
        status = json.loads(data)
        return f"Error from server ({status['reason']}): {status['message']}"
    except (ValueError, KeyError):
        return data.decode(errors="replace")


def reader(kubeconfig: str) -> ApiReader:
    """The reader of a kubeconfig. Its file can be written again."""
    return _reader(kubeconfig, Path(kubeconfig).read_text())


@functools.lru_cache(maxsize=64)
def _reader(kubeconfig: str, content: str) -> ApiReader:
    del content
    return ApiReader(kubeconfig)
