"""A client of the API server for the tests. Hundreds of lives would need thousands of kubectls."""

import base64
import json
import ssl
from pathlib import Path
from typing import Any, TypeAlias

import urllib3
import yaml

from finetune_api import names
from finetune_api.wire import JsonObject

GROUPS = {
    "pods": "/api/v1",
    "services": "/api/v1",
    "events": "/api/v1",
    "serviceaccounts": "/api/v1",
    "jobs": "/apis/batch/v1",
    "deployments": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "finetunes": f"/apis/{names.API_VERSION}",
    "models": f"/apis/{names.API_VERSION}",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
}
PLURALS = {"RoleBinding": "rolebindings", "Role": "roles", "ServiceAccount": "serviceaccounts"}


JsonObjects: TypeAlias = list[JsonObject]


class ApiRefusalError(Exception):
    """An error of the API server."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """The API of one namespace, with the rights of an administrator."""

    def __init__(self, pool: urllib3.PoolManager, server: str, namespace: str) -> None:
        self._pool = pool
        self.server = server
        self.namespace = namespace

    @classmethod
    def connect(cls, kubeconfig: Path, folder: Path) -> "Api":
        """folder: for the certificates, which Python's ssl module reads from files."""
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        found = {
            "authority": cluster["certificate-authority-data"],
            "certificate": user["client-certificate-data"],
            "key": user["client-key-data"],
        }
        for name, data in found.items():
            (folder / name).write_bytes(base64.b64decode(data))
        context = ssl.create_default_context(cafile=str(folder / "authority"))
        context.load_cert_chain(folder / "certificate", folder / "key")
        pool = urllib3.PoolManager(maxsize=32, ssl_context=context, retries=False, timeout=30)
        return cls(pool, cluster["server"], "default")

    def within(self, namespace: str) -> "Api":
        return Api(self._pool, self.server, namespace)

    def create_namespace(self) -> None:
        meta = {"name": self.namespace}
        self._request("POST", "/api/v1/namespaces", {"metadata": meta})

    def get(self, plural: str, name: str) -> JsonObject | None:
        """The object; None if it does not exist."""
        try:
            return self._request("GET", f"{self._path(plural)}/{name}")
        except ApiRefusalError as error:
            if error.status == 404:
                return None
            raise

    def list(self, plural: str) -> JsonObjects:
        items: JsonObjects = self._request("GET", self._path(plural))["items"]
        return items

    def create(self, plural: str, body: JsonObject) -> JsonObject:
        return self._request("POST", self._path(plural), body)

    def create_all(self, objects: JsonObjects) -> None:
        """Create rendered objects of the kinds in PLURALS."""
        for item in objects:
            self.create(PLURALS[item["kind"]], item)

    def patch(self, plural: str, name: str, change: JsonObject) -> None:
        """Apply a merge patch. `name` may end with a subresource, such as `tone/status`."""
        kind = "application/merge-patch+json"
        self._request("PATCH", f"{self._path(plural)}/{name}", change, kind)

    def delete(self, plural: str, name: str) -> None:
        # Without the policy, the pods of a Job would stay.
        body = {"propagationPolicy": "Background"}
        self._request("DELETE", f"{self._path(plural)}/{name}", body)

    def token(self, account: str) -> str:
        path = f"{self._path('serviceaccounts')}/{account}/token"
        token: str = self._request("POST", path, {"spec": {}})["status"]["token"]
        return token

    def _path(self, plural: str) -> str:
        return f"{GROUPS[plural]}/namespaces/{self.namespace}/{plural}"

    def _request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> JsonObject:
        answer = self._pool.request(
            method,
            self.server + path,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": kind, "Accept": "application/json"},
        )
        found: JsonObject = json.loads(answer.data)
        if answer.status >= 400:
            raise ApiRefusalError(answer.status, str(found.get("message")))
        return found
