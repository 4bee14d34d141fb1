"""Checks the GPU nodes: GPUs, drivers, RDMA devices, and the RuntimeClass. Pure.

The driver and the model come from labels of NVIDIA's GPU feature discovery, or from those of the
cloud provider. Without labels they are unknown, which is no problem.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune_api.drivers import IMAGE_CUDA, is_too_old, minimum_driver, parse_driver
from finetune_api.names import Reason
from finetune_api.wire import JsonObject
from finetune_cli.commands.doctor.findings import Finding
from finetune_data.read.findings import counted

GPU_SUFFIX = "/gpu"  # nvidia.com/gpu, amd.com/gpu
NVIDIA = "nvidia.com/gpu"
NAMES_SHOWN = 3
MODEL_LABELS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "k8s.amazonaws.com/accelerator",
    "node.kubernetes.io/instance-type",
)
MEMORY_LABEL = "nvidia.com/gpu.memory"  # MiB
DRIVER_LABEL = "nvidia.com/cuda.driver-version.full"
OLD_DRIVER_LABELS = tuple(f"nvidia.com/cuda.driver.{part}" for part in ("major", "minor", "rev"))
# Resources of RDMA device plugins: rdma/ib, rdma/hca_shared_devices_a, vpc.amazonaws.com/efa,
# nvidia.com/hostdev, openshift.io/mlnxnics.
RDMA = re.compile(r"rdma/.+|vpc\.amazonaws\.com/efa|.+/.*(rdma|roce|mlnx|hostdev|infiniband).*")


@dataclass(frozen=True)
class GpuNode:
    """A node with GPUs to which pods may go."""

    name: str
    gpus: dict[str, int]  # by resource, whether in use or not
    model: str  # "" if unknown
    memory_mib: int | None
    driver: str | None
    rdma: tuple[str, ...]

    @classmethod
    def of(cls, node: JsonObject) -> GpuNode | None:
        """None: the node has no GPU, or no pod may go there."""
        if (node.get("spec") or {}).get("unschedulable"):
            return None
        allocatable = _texts((node.get("status") or {}).get("allocatable"))
        amounts = {name: _count(text) for name, text in allocatable.items()}
        gpus = {n: amount for n, amount in amounts.items() if n.endswith(GPU_SUFFIX) and amount}
        if not gpus:
            return None
        metadata = node.get("metadata") or {}
        labels = _texts(metadata.get("labels"))
        return cls(
            name=str(metadata.get("name", "?")),
            gpus=gpus,
            model=next((labels[label] for label in MODEL_LABELS if labels.get(label)), ""),
            memory_mib=_count(labels.get(MEMORY_LABEL, "")) or None,
            driver=_driver(labels),
            rdma=tuple(sorted(n for n, amount in amounts.items() if amount and RDMA.fullmatch(n))),
        )


def gpu_findings(
    nodes: Sequence[JsonObject] | None, runtime_classes: Sequence[JsonObject] | None
) -> Iterator[Finding]:
    """What the nodes say about their GPUs; None: the user may not list them."""
    if nodes is None:
        yield Finding("unknown", "GPUs", "you may not list nodes")
        return
    found = [made for node in nodes if (made := GpuNode.of(node)) is not None]
    yield gpus(found, len(nodes))
    with_nvidia = [node for node in found if NVIDIA in node.gpus]
    if with_nvidia:
        yield driver(with_nvidia)
    if len(with_nvidia) > 1:
        yield rdma(with_nvidia)
    if with_nvidia and runtime_classes:
        yield from runtime_class(runtime_classes)


def gpus(nodes: Sequence[GpuNode], of: int) -> Finding:
    """The GPUs, whether in use or not; only the scheduler knows which are free. of: all nodes."""
    if not nodes:
        return Finding(
            "warning",
            "GPUs",
            f"none on this cluster ({counted(of, 'node')})",
            "train on CPU (--gpus-per-node 0), or ask an administrator to install the GPUs' device "
            "plugin",
        )
    counts = []
    for resource in sorted({name for node in nodes for name in node.gpus}):
        having = [node for node in nodes if resource in node.gpus]
        amount = sum(node.gpus[resource] for node in having)
        models = ", ".join(dict.fromkeys(text for node in having if (text := _model(node))))
        text = f"{amount} {resource} on {counted(len(having), 'node')}"
        counts.append(f"{text} ({models})" if models else text)
    return Finding("ok", "GPUs", ", ".join(counts))


def driver(nodes: Sequence[GpuNode]) -> Finding:
    """Whether the drivers are new enough for the project's trainer image."""
    minimum = minimum_driver(IMAGE_CUDA)
    need = f"the trainer image requires {minimum} or later"
    old = [node for node in nodes if is_too_old(node.driver, minimum)]
    known = [node for node in nodes if node.driver]
    if old:
        return Finding(
            "warning",
            "GPU driver",
            f"{_named([f'{node.name} ({node.driver})' for node in old])}; too old, because {need}; "
            f"FineTunes fail there with reason {Reason.DRIVER_TOO_OLD}",
            "upgrade the driver (node image or GPU operator), select other nodes in "
            "spec.scheduling.nodeSelector, or use a runtime whose image has an older CUDA",
        )
    if not known:
        return Finding(
            "unknown",
            "GPU driver",
            f"the nodes have no label {DRIVER_LABEL} (GPU feature discovery); {need}",
        )
    versions = Counter(str(node.driver) for node in known)
    if len(known) < len(nodes):
        versions["unknown"] = len(nodes) - len(known)
    listed = ", ".join(f"{version} on {counted(n, 'node')}" for version, n in versions.items())
    return Finding("ok", "GPU driver", f"{listed}; {need}")


def rdma(nodes: Sequence[GpuNode]) -> Finding:
    """The resources by which pods request RDMA devices, for trainings on several nodes."""
    having = Counter(name for node in nodes for name in node.rdma)
    if not having:
        return Finding(
            "ok", "RDMA", "no node offers RDMA devices; several nodes communicate over TCP sockets"
        )
    listed = [f"{name} on {counted(count, 'node')}" for name, count in sorted(having.items())]
    return Finding("ok", "RDMA", f"{_named(listed)}; pods get what runtimes[].resources requests")


def runtime_class(classes: Sequence[JsonObject]) -> Iterator[Finding]:
    """The RuntimeClasses whose containers see GPUs."""
    names = [
        str((item.get("metadata") or {}).get("name", "?"))
        for item in classes
        if "nvidia" in str(item.get("handler", ""))
    ]
    if names:
        detail = "where nvidia is not the nodes' default, set the chart value"
        text = f"{_named(sorted(names))}; {detail} runtimes[].runtimeClassName"
        yield Finding("ok", "RuntimeClass", text)


def _model(node: GpuNode) -> str:
    memory = f"{node.memory_mib / 1024:.1f} GiB" if node.memory_mib else ""
    return " with ".join(filter(None, (node.model, memory)))


def _driver(labels: dict[str, str]) -> str | None:
    parts = [labels.get(label, "") for label in OLD_DRIVER_LABELS]
    found = labels.get(DRIVER_LABEL) or ".".join(filter(None, parts))
    return found if parse_driver(found) else None


def _named(items: Sequence[str]) -> str:
    more = len(items) - NAMES_SHOWN
    return ", ".join(items[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _texts(value: object) -> dict[str, str]:
    """The entries of a map; empty if it is none."""
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _count(text: str) -> int:
    """0 for a text that is no number, or too long for one."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0
