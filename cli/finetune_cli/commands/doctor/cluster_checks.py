"""The doctor's look at the cluster: server, CRDs, rights, operator, credentials, GPUs."""

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
from finetune_cli.terminal.format import parse_time
from finetune_data.read.findings import counted

INSTALL = "helm install finetune charts/finetune-operator -n {namespace}"
SECRET = "finetune-s3"  # noqa: S105 - a name; the chart's default
OPERATOR = "app.kubernetes.io/name=finetune-operator"
GPU_SUFFIX = "/gpu"  # nvidia.com/gpu, amd.com/gpu
OLDEST = (1, 29)  # CEL rules of the CRDs, Jobs' podReplacementPolicy

# (what a person does with it, verb, API group, resource): the first four are needed
RIGHTS = (
    ("create", "create", GROUP, "finetunes"),
    ("follow, list", "watch", GROUP, "finetunes"),
    ("get, list", "list", GROUP, "finetunes"),
    ("cancel, suspend, resume", "patch", GROUP, "finetunes"),
    ("models", "list", GROUP, "models"),
    ("logs", "list", "", "pods"),
    ("logs", "get", "", "pods/log"),
)
NEEDED = 4


def cluster_findings(cluster: Cluster) -> Iterator[Finding]:
    """Each as soon as it is known; stops where nothing further can be asked.

    Raises UnreachableError where nothing answers.
    """
    yield server(cluster.request("GET", "/version"), cluster.host)
    kinds = _kinds(cluster)
    yield crds(kinds, cluster.namespace)
    if not kinds:
        return
    if _look(lambda: _has_namespace(cluster)) is False:
        yield missing_namespace(cluster.namespace)
        return
    yield rights(_allowed(cluster), cluster.namespace)
    yield operator(_look(lambda: _operators(cluster)), _unseen(cluster), cluster.namespace)
    yield secret(_look(lambda: _exists(cluster, "secrets", SECRET)), cluster.namespace)
    yield gpus(_look(lambda: _nodes(cluster)))


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
            f"{host} runs Kubernetes {text}, and FineTunes need {OLDEST[0]}.{OLDEST[1]}",
            "ask for an upgrade of the cluster",
        )
    return Finding("ok", "cluster", f"{host}, Kubernetes {text}")


def crds(kinds: frozenset[str], namespace: str) -> Finding:
    missing = sorted({"finetunes", "models"} - kinds)
    if missing:
        return Finding(
            "error",
            "CRDs",
            f"the cluster does not know {' and '.join(missing)} of {GROUP}/{VERSION}",
            f"an administrator installs them: {INSTALL.format(namespace=namespace)}",
        )
    return Finding("ok", "CRDs", f"finetunes and models of {GROUP}/{VERSION}")


def missing_namespace(namespace: str) -> Finding:
    message = f"there is no namespace {namespace}"
    return Finding("error", "namespace", message, namespace_hint(namespace))


def rights(allowed: Sequence[bool], namespace: str) -> Finding:
    """allowed: one for each of RIGHTS."""
    missing = [
        f"{verb} {resource}"
        for (_, verb, _, resource), is_allowed in zip(RIGHTS, allowed, strict=True)
        if not is_allowed
    ]
    if not missing:
        return Finding("ok", "permissions", f"all that the commands need in namespace {namespace}")
    keeps = [
        command for (command, *_), is_allowed in zip(RIGHTS, allowed, strict=True) if not is_allowed
    ]
    return Finding(
        "warning" if all(allowed[:NEEDED]) else "error",
        "permissions",
        f"you may not {', '.join(missing)} in namespace {namespace}: it keeps you from "
        f"{', '.join(dict.fromkeys(keeps))}",
        "ask an administrator to bind you the chart's Role finetune-user: kubectl create "
        f"rolebinding YOU-finetune -n {namespace} --role=finetune-user --user=YOU",
    )


def operator(
    deployments: Sequence[JsonObject] | None, unseen: Sequence[str], namespace: str
) -> Finding:
    """deployments: None where they can't be seen; unseen: FineTunes that nobody has touched."""
    if unseen:
        return Finding(
            "error",
            "operator",
            f"nobody has taken up {', '.join(unseen[:3])}: no operator serves namespace "
            f"{namespace}",
            "look at its pod (kubectl get pods -A -l "
            + OPERATOR
            + "), or install it: "
            + INSTALL.format(namespace=namespace),
        )
    if deployments is None:
        return Finding("unknown", "operator", "you may not look; no fine-tune waits for it")
    ready = [it for it in deployments if (it.get("status") or {}).get("readyReplicas")]
    if ready:
        here = [it for it in ready if it["metadata"]["namespace"] == namespace]
        meta = (here or ready)[0]["metadata"]
        only = "" if here else f"; it serves {namespace} only if installed with clusterWide=true"
        return Finding("ok", "operator", f"{meta['namespace']}/{meta['name']} is ready{only}")
    if deployments:
        meta = deployments[0]["metadata"]
        return Finding(
            "error",
            "operator",
            f"{meta['namespace']}/{meta['name']} is not ready",
            f"kubectl describe deployment {meta['name']} -n {meta['namespace']}",
        )
    return Finding(
        "warning",
        "operator",
        f"none in namespace {namespace}; one that serves all namespaces may be elsewhere",
        INSTALL.format(namespace=namespace),
    )


def secret(is_there: bool | None, namespace: str) -> Finding:
    if is_there:
        return Finding("ok", "pods' S3 login", f"Secret {SECRET} is in namespace {namespace}")
    if is_there is None:
        return Finding(
            "unknown", "pods' S3 login", f"you may not look whether Secret {SECRET} is there"
        )
    return Finding(
        "warning",
        "pods' S3 login",
        f"no Secret {SECRET} in namespace {namespace}: right only with a workload identity or "
        "spec.storage.secretName",
        f"kubectl create secret generic {SECRET} -n {namespace} --from-literal="
        "AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=...",
    )


def gpus(nodes: Sequence[JsonObject] | None) -> Finding:
    """What the nodes offer; how much of it is free only the scheduler knows."""
    if nodes is None:
        return Finding("unknown", "GPUs", "you may not list nodes")
    offers: dict[str, list[int]] = {}
    for node in nodes:
        if (node.get("spec") or {}).get("unschedulable"):
            continue
        for name, amount in ((node.get("status") or {}).get("allocatable") or {}).items():
            if name.endswith(GPU_SUFFIX) and str(amount).isdecimal() and int(amount):
                offers.setdefault(name, []).append(int(amount))
    if not offers:
        return Finding(
            "warning",
            "GPUs",
            f"none on this cluster ({counted(len(nodes), 'node')})",
            "train on CPU (--gpus-per-node 0), or have the GPUs' device plugin installed",
        )
    words = [
        f"{sum(found)} {name} on {counted(len(found), 'node')}"
        for name, found in sorted(offers.items())
    ]
    return Finding("ok", "GPUs", ", ".join(words))


def _look(ask: Callable[[], Any]) -> Any:
    """What `ask` finds; None where this person may not look."""
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
    return [_may(cluster, verb, group, resource) for _, verb, group, resource in RIGHTS]


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
    """Of all namespaces where they may be seen, else of this one."""
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


def _unseen(cluster: Cluster) -> list[str]:
    """FineTunes without any status, the newest left out: it may have come this second."""
    try:
        items = cluster.finetunes.list()
    except ApiError:
        return []
    now = datetime.now(UTC)
    return [
        item["metadata"]["name"]
        for item in items
        if not (item.get("status") or {}).get("state")
        and (made := parse_time(item["metadata"].get("creationTimestamp")))
        and (now - made).total_seconds() > 30
    ]


def _has_namespace(cluster: Cluster) -> bool:
    return _is_there(cluster, f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}")


def _exists(cluster: Cluster, plural: str, name: str) -> bool:
    return _is_there(cluster, f"{_path(cluster, '/api/v1', plural)}/{name}")


def _is_there(cluster: Cluster, path: str) -> bool:
    """Asked for its metadata alone: a Secret's content is none of our business."""
    try:
        cluster.request("GET", path, accept=METADATA_ONLY)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def _nodes(cluster: Cluster) -> list[JsonObject]:
    items: list[JsonObject] = cluster.request("GET", "/api/v1/nodes")["items"]
    return items


def _path(cluster: Cluster, base: str, plural: str) -> str:
    return f"{base}/namespaces/{quote(cluster.namespace, safe='')}/{plural}"
