"""One log line about a node at startup, and one about the network that NCCL chose."""

from collections import Counter
from dataclasses import dataclass

from finetune_api.names import NETWORK_LINE, NODE_LINE
from finetune_trainer.hardware.gpu_access import read_driver
from finetune_trainer.hardware.links import Links, observe_links
from finetune_trainer.hardware.nccl_log import NcclNetwork

LITTLE_LOCKED = 2**30  # bytes; NCCL locks more for RDMA


@dataclass(frozen=True)
class Node:
    """The hardware and the libraries of a node, as its pod sees them."""

    driver: str | None
    cuda: str | None
    nccl: str
    gpus: tuple[str, ...]  # the name of each
    gpu_bytes: int  # of the smallest one
    has_peer_access: bool  # whether the first two GPUs can copy to each other directly
    links: Links


def observe_node() -> Node:
    """The node of this process, which must be able to use its GPUs."""
    import torch

    count = torch.cuda.device_count()
    gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    return Node(
        driver=read_driver(),
        cuda=torch.version.cuda,
        nccl=".".join(map(str, torch.cuda.nccl.version())),
        gpus=tuple(gpu.name for gpu in gpus),
        gpu_bytes=min((gpu.total_memory for gpu in gpus), default=0),
        has_peer_access=count > 1 and torch.cuda.can_device_access_peer(0, 1),
        links=observe_links(),
    )


def node_line() -> str:
    """The line about this node. It never fails: a run does not end for its sake."""
    try:
        return describe_node(observe_node())
    except (RuntimeError, AssertionError) as error:
        return f"{NODE_LINE}unknown ({error})"


def describe_node(node: Node) -> str:
    """ "node: 8 x NVIDIA H100 80GB HBM3 (79.2 GiB, NVLink), driver 580.65.06, CUDA 13.0, ..." """
    models = ", ".join(f"{count} x {name}" for name, count in Counter(node.gpus).items())
    memory = f"{node.gpu_bytes / 2**30:.1f} GiB"
    if len(node.gpus) > 1:
        memory += f", {_between_gpus(node)}"
    parts = (
        f"{models} ({memory})",
        f"driver {node.driver or 'unknown'}",
        f"CUDA {node.cuda}",
        f"NCCL {node.nccl}",
        _describe_rdma(node.links),
        f"interfaces {', '.join(node.links.interfaces) or 'unknown'}",
    )
    return f"{NODE_LINE}{', '.join(parts)}"


def describe_network(network: NcclNetwork | None, links: Links) -> str:
    """The network that NCCL chose for the traffic between nodes, with a warning if it is slow."""
    if network is None:
        return "NCCL's network is unknown: NCCL_DEBUG is set, or NCCL wrote no log"
    devices = f" on {', '.join(network.devices)}" if network.devices else ""
    if not network.is_socket:
        return f"{NETWORK_LINE}the network {network.name}{devices} between the nodes"
    cause = "the node has no active RDMA device"
    if links.rdma and not links.is_rdma_usable:
        cause = "the node has RDMA devices, but the pod has no access: request them as a resource"
    elif links.rdma:
        cause = "although the pod has RDMA devices: check NCCL_IB_HCA and NCCL_IB_DISABLE"
        if (limit := links.locked_bytes) is not None and limit < LITTLE_LOCKED:
            cause += f", and the limit of locked memory, {limit // 1024} KiB"
    return f"warning: {NETWORK_LINE}TCP sockets{devices} between the nodes ({cause})"


def _between_gpus(node: Node) -> str:
    if node.links.nvlinks:
        return f"{node.links.nvlinks} NVLinks each"
    return "PCIe with peer access" if node.has_peer_access else "PCIe without peer access"


def _describe_rdma(links: Links) -> str:
    if not links.rdma:
        return "no RDMA"
    kinds: Counter[str] = Counter(
        f"{port.kind} {port.gigabits:g} Gb/s" if port.gigabits else port.kind for port in links.rdma
    )
    text = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"RDMA {text}" + ("" if links.is_rdma_usable else " without access from the pod")
