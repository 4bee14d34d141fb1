"""Reads what the newest GPU pods of the namespace logged about their hardware and network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from urllib.parse import quote

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster
from finetune_cli.cluster.errors import ApiError, UnreachableError
from finetune_cli.commands.doctor.findings import Finding
from finetune_data.read.findings import counted

PODS_READ = 4
LOG_BYTES = 65536  # from the start of a log, where the lines are
LOG_LINES = 1000
LINE_CHARACTERS = 500
SECONDS = 10.0
WARNING = "warning: "


def read_logs(cluster: Cluster) -> list[list[str]]:
    """The first lines of the logs of a few pods of the newest training on GPUs."""
    pods = cluster.request(
        "GET",
        f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}/pods",
        query={"labelSelector": f"{names.LABEL_COMPONENT}={names.COMPONENT_TRAIN}"},
    )["items"]
    found = []
    for pod in newest_gpu_pods(pods):
        path = f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}/pods/"
        query: dict[str, str | int | bool] = {
            "container": names.CONTAINER,
            "limitBytes": LOG_BYTES,
        }
        try:
            with cluster.lines(f"{path}{quote(pod, safe='')}/log", query, SECONDS) as lines:
                found.append([line.decode(errors="replace") for line in islice(lines, LOG_LINES)])
        except ApiError as error:
            if error.status in {401, 403}:
                raise
            # the pod has no log yet, or no longer exists
        except UnreachableError:
            pass  # the API server cannot reach the pod's node
    return found


def newest_gpu_pods(pods: Sequence[JsonObject]) -> list[str]:
    """The names of at most PODS_READ started pods of the newest attempt that requests GPUs."""
    started = [
        pod
        for pod in pods
        if _requests_gpus(pod) and (pod.get("status") or {}).get("phase") not in {None, "Pending"}
    ]
    newest = max(started, key=_created, default=None)
    return sorted(
        str(pod["metadata"]["name"])
        for pod in started
        if newest is not None and _attempt(pod) == _attempt(newest)
    )[:PODS_READ]


def log_findings(logs: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """The hardware of the newest training, and the network that NCCL chose."""
    lines = [line[:LINE_CHARACTERS].strip() for log in logs for line in log]
    nodes = Counter(
        line.removeprefix(names.NODE_LINE) for line in lines if line.startswith(names.NODE_LINE)
    )
    if nodes:
        listed = [f"{counted(count, 'pod')} with {text}" for text, count in nodes.items()]
        yield Finding("ok", "newest training", "; ".join(listed))
    networks = list(
        dict.fromkeys(
            line for line in lines if line.removeprefix(WARNING).startswith(names.NETWORK_LINE)
        )
    )
    slow = [line for line in networks if line.startswith(WARNING)]
    if slow:
        yield Finding(
            "warning",
            "network",
            slow[0].removeprefix(WARNING),
            "give the pods RDMA devices: docs/how-to/multi-node.md, Configure the network",
        )
    elif networks:
        yield Finding("ok", "network", networks[0])


def _requests_gpus(pod: JsonObject) -> bool:
    containers = (pod.get("spec") or {}).get("containers") or []
    limits = [(it.get("resources") or {}).get("limits") or {} for it in containers]
    return any(name.endswith("/gpu") for each in limits for name in each)


def _attempt(pod: JsonObject) -> tuple[str, str]:
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get(names.LABEL_UID)), str(labels.get(names.LABEL_ATTEMPT))


def _created(pod: JsonObject) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")
