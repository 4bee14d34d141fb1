"""Checks the cluster: server, CRDs, permissions, operator, S3 credentials, GPUs, and network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from finetune_api.names import GROUP, VERSION
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import METADATA_ONLY, Cluster
from finetune_cli.cluster.errors import ApiError, namespace_hint
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.commands.doctor.gpu_checks import gpu_findings
from finetune_cli.commands.doctor.operator_checks import (
    INSTALL,
    OPERATOR,
    find_ignored,
    operator,
    requests,
)
from finetune_cli.commands.doctor.serving_checks import serving_findings
from finetune_cli.commands.doctor.training_logs import log_findings, read_logs

SECRET = "finetune-s3"  # noqa: S105 - a name; the chart's default
OLDEST = (1, 29)  # for the CRDs' CEL rules and the Jobs' podReplacementPolicy

# (commands that need it, verb, API group, resource); the first four are required
PERMISSIONS = (
    ("create", "create", GROUP, "finetunes"),
    ("follow, list", "watch", GROUP, "finetunes"),
    ("get, list", "list", GROUP, "finetunes"),
    ("cancel, suspend, resume", "patch", GROUP, "finetunes"),
    ("models", "list", GROUP, "models"),
    ("logs", "list", "", "pods"),
    ("logs", "get", "", "pods/log"),
)
REQUIRED = 4


def cluster_findings(cluster: Cluster) -> Iterator[Finding]:
    """Yield each result as soon as it is known; stop if the remaining checks are impossible.

    Raises UnreachableError if the API server does not respond.
    """
    yield server(cluster.request("GET", "/version"), cluster.host)
    kinds = _kinds(cluster)
    yield crds(kinds, cluster.namespace)
    if not kinds:
        return
    if _if_permitted(lambda: _has_namespace(cluster)) is False:
        yield missing_namespace(cluster.namespace)
        return
    yield permissions(_allowed(cluster), cluster.namespace)
    finetunes = _finetunes(cluster)
    yield operator(
        _if_permitted(lambda: _operators(cluster)),
        find_ignored(finetunes, datetime.now(UTC)),
        cluster.namespace,
        _if_permitted(lambda: refused_statuses(cluster)) or {},
    )
    yield from requests(finetunes, cluster.namespace)
    yield from serving_findings(_models(cluster), cluster.namespace)
    yield secret(_if_permitted(lambda: _has_object(cluster, "secrets", SECRET)), cluster.namespace)
    nodes = _if_permitted(lambda: _items(cluster, "/api/v1/nodes"))
    classes = _if_permitted(lambda: _items(cluster, "/apis/node.k8s.io/v1/runtimeclasses"))
    yield from gpu_findings(nodes, classes)
    yield from log_findings(_if_permitted(lambda: read_logs(cluster)) or [])


def server(version: JsonObject, host: str) -> Finding:
    text = str(version.get("gitVersion", "?"))
    digits = [
        int("".join(filter(str.isdecimal, str(version.get(key, "")))) or 0)
        for key in ("major", "minor")
    ]
    if tuple(digits) < OLDEST:
        return Finding(
            "error",
            "cluster",
            f"{host} runs Kubernetes {text}; FineTunes require {OLDEST[0]}.{OLDEST[1]} or later",
            "ask an administrator to upgrade the cluster",
        )
    return Finding("ok", "cluster", f"{host}, Kubernetes {text}")


def crds(kinds: frozenset[str], namespace: str) -> Finding:
    missing = sorted({"finetunes", "models"} - kinds)
    if missing:
        return Finding(
            "error",
            "CRDs",
            f"{' and '.join(missing)} of {GROUP}/{VERSION} are not installed",
            f"ask an administrator to run: {INSTALL.format(namespace=namespace)}",
        )
    return Finding("ok", "CRDs", f"finetunes and models of {GROUP}/{VERSION}")


def missing_namespace(namespace: str) -> Finding:
    message = f"there is no namespace {namespace}"
    return Finding("error", "namespace", message, namespace_hint(namespace))


def permissions(allowed: Sequence[bool], namespace: str) -> Finding:
    """allowed: an answer for each of PERMISSIONS."""
    missing = [
        f"{verb} {resource}"
        for (_, verb, _, resource), is_allowed in zip(PERMISSIONS, allowed, strict=True)
        if not is_allowed
    ]
    if not missing:
        return Finding("ok", "permissions", f"sufficient for all commands in namespace {namespace}")
    blocked = [
        command
        for (command, *_), is_allowed in zip(PERMISSIONS, allowed, strict=True)
        if not is_allowed
    ]
    return Finding(
        "warning" if all(allowed[:REQUIRED]) else "error",
        "permissions",
        f"you may not {', '.join(missing)} in namespace {namespace}; blocked commands: "
        f"{', '.join(dict.fromkeys(blocked))}",
        "ask an administrator for the chart's Role finetune-user: kubectl create "
        f"rolebinding YOU-finetune -n {namespace} --role=finetune-user --user=YOU",
    )


def secret(exists: bool | None, namespace: str) -> Finding:
    if exists:
        return Finding("ok", "S3 credentials", f"Secret {SECRET} exists in namespace {namespace}")
    if exists is None:
        return Finding("unknown", "S3 credentials", f"you may not check for Secret {SECRET}")
    return Finding(
        "warning",
        "S3 credentials",
        f"no Secret {SECRET} in namespace {namespace}; pods then need a workload identity or "
        "spec.storage.secretName",
        f"kubectl create secret generic {SECRET} -n {namespace} --from-literal="
        "AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=...",
    )


def _if_permitted(ask: Callable[[], Any]) -> Any:
    """The result of `ask`; None if the user has no permission."""
    try:
        return ask()
    except ApiError as error:
        if error.status in {401, 403}:
            return None
        raise


def _kinds(cluster: Cluster) -> frozenset[str]:
    try:
        found = cluster.request("GET", f"/apis/{GROUP}/{VERSION}")
    except ApiError as error:
        if error.status == 404:
            return frozenset()
        raise
    return frozenset(str(item["name"]) for item in found["resources"])


def _allowed(cluster: Cluster) -> list[bool]:
    return [_may(cluster, verb, group, resource) for _, verb, group, resource in PERMISSIONS]


def _may(cluster: Cluster, verb: str, group: str, resource: str) -> bool:
    kind, _, part = resource.partition("/")
    attributes = {
        "namespace": cluster.namespace,
        "verb": verb,
        "group": group,
        "resource": kind,
        "subresource": part,
    }
    answer = cluster.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool(answer["status"].get("allowed"))


def _operators(cluster: Cluster) -> list[JsonObject]:
    """The operators in all namespaces if permitted, otherwise in this namespace."""
    for path in ("/apis/apps/v1/deployments", _path(cluster, "/apis/apps/v1", "deployments")):
        try:
            items: list[JsonObject] = cluster.request(
                "GET", path, query={"labelSelector": OPERATOR}
            )["items"]
        except ApiError as error:
            if error.status != 403 or "namespaces" in path:
                raise
        else:
            return items
    return []


def _finetunes(cluster: Cluster) -> list[JsonObject]:
    try:
        return cluster.finetunes.list()
    except ApiError:
        return []


def _models(cluster: Cluster) -> list[JsonObject]:
    try:
        return cluster.models.list()
    except ApiError:
        return []


def refused_statuses(cluster: Cluster) -> dict[str, str]:
    """Map FineTunes to the message of the operator's Event on a status that it cannot write."""
    selector = "involvedObject.kind=FineTune,reason=StatusRefused"
    path = _path(cluster, "/api/v1", "events")
    found = cluster.request("GET", path, query={"fieldSelector": selector, "limit": 100})
    return {
        str(item["involvedObject"].get("name")): str(item.get("message", ""))
        for item in found["items"]
    }


def _has_namespace(cluster: Cluster) -> bool:
    return _exists(cluster, f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}")


def _has_object(cluster: Cluster, plural: str, name: str) -> bool:
    return _exists(cluster, f"{_path(cluster, '/api/v1', plural)}/{name}")


def _exists(cluster: Cluster, path: str) -> bool:
    """Request only the metadata, so that the content of a Secret is never read."""
    try:
        cluster.request("GET", path, accept=METADATA_ONLY)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def _items(cluster: Cluster, path: str) -> list[JsonObject]:
    items: list[JsonObject] = cluster.request("GET", path)["items"]
    return items


def _path(cluster: Cluster, base: str, plural: str) -> str:
    return f"{base}/namespaces/{quote(cluster.namespace, safe='')}/{plural}"
