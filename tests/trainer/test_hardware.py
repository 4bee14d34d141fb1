"""The log lines about a node and its network, from fakes of the kernel's files and of NVML."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_trainer.hardware import links, nccl_log
from finetune_trainer.hardware.description import Node, describe_network, describe_node
from finetune_trainer.hardware.links import Links, RdmaPort
from finetune_trainer.hardware.nccl_log import NcclNetwork, read_network
from finetune_trainer.launcher.rank_processes import environment
from tests.trainer import support

GIB = 2**30


def put(folder: Path, device: str, port: str, **files: str) -> None:
    place = folder / device / "ports" / port
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name).write_text(text + "\n")


def test_active_rdma_ports_are_found(tmp_path: Path) -> None:
    rate = "400 Gb/sec (4X NDR)"
    put(tmp_path, "mlx5_1", "1", state="4: ACTIVE", rate=rate, link_layer="InfiniBand")
    put(tmp_path, "mlx5_0", "1", state="4: ACTIVE", rate=rate, link_layer="InfiniBand")
    put(tmp_path, "mlx5_2", "1", state="1: DOWN", rate="10 Gb/sec (4X)", link_layer="Ethernet")
    put(tmp_path, "rdmap16s27", "1", state="4: ACTIVE", rate="?", link_layer="Unspecified\x1b[2J")
    put(tmp_path, "mlx5_3", "1")  # files that a container may not read
    assert links.active_ports(tmp_path) == (
        RdmaPort("mlx5_0", "InfiniBand", 400),
        RdmaPort("mlx5_1", "InfiniBand", 400),
        RdmaPort("rdmap16s27", "RDMA", 0),
    )
    assert links.active_ports(tmp_path / "missing") == ()


def test_rdma_is_usable_if_the_container_has_a_device_file(tmp_path: Path) -> None:
    assert not links.is_rdma_usable(tmp_path / "missing")
    (tmp_path / "rdma_cm").touch()
    assert not links.is_rdma_usable(tmp_path)
    (tmp_path / "uverbs0").touch()
    assert links.is_rdma_usable(tmp_path)


def test_interfaces_that_are_up_are_listed(tmp_path: Path) -> None:
    for name, state in {"lo": "unknown", "eth0": "up", "eth1": "down", "net1": "unknown"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(state)
    assert links.interfaces(tmp_path) == ("eth0", "net1")


class FakeNvml:
    """The functions of NVML for one GPU with some active links."""

    def __init__(self, active: set[int], *, status: int = 0) -> None:
        self.calls: list[str] = []
        self._active = active
        self._status = status

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's name
        self.calls.append("init")
        return self._status

    def nvmlShutdown(self) -> int:  # noqa: N802 - NVML's name
        self.calls.append("shutdown")
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 0xABCD
        return index

    def nvmlDeviceGetNvLinkState(self, handle: Any, link: int, state: Any) -> int:  # noqa: N802
        assert handle.value == 0xABCD
        state._obj.value = int(link in self._active)
        return 0 if link < 18 else 2  # invalid argument


def test_active_nvlinks_are_counted() -> None:
    nvml = FakeNvml({0, 1, 2, 17, 20})
    assert links.active_nvlinks(lambda: nvml) == 4
    assert nvml.calls == ["init", "shutdown"]
    assert links.active_nvlinks(lambda: FakeNvml(set(), status=9)) is None
    assert links.active_nvlinks(SimpleNamespace) is None


def test_without_nvidias_library_nvlinks_are_unknown() -> None:
    def load() -> Any:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    assert links.active_nvlinks(load) is None


NODE = Node(
    driver="580.65.06",
    cuda="13.0",
    nccl="2.29.7",
    gpus=("NVIDIA H100 80GB HBM3",) * 8,
    gpu_bytes=int(79.2 * GIB),
    has_peer_access=True,
    links=Links(
        nvlinks=18,
        rdma=tuple(RdmaPort(f"mlx5_{n}", "InfiniBand", 400) for n in range(8)),
        is_rdma_usable=True,
        interfaces=("eth0",),
    ),
)


def test_one_line_describes_a_node() -> None:
    assert describe_node(NODE) == (
        "node: 8 x NVIDIA H100 80GB HBM3 (79.2 GiB, 18 NVLinks each), driver 580.65.06, CUDA 13.0, "
        "NCCL 2.29.7, RDMA 8 x InfiniBand 400 Gb/s, interfaces eth0"
    )


def test_a_node_of_which_little_is_known_is_described() -> None:
    node = Node(
        driver=None, cuda="12.8", nccl="2.27.3", gpus=("A", "B"), gpu_bytes=GIB,
        has_peer_access=False, links=Links(),
    )  # fmt: skip
    assert describe_node(node) == (
        "node: 1 x A, 1 x B (1.0 GiB, PCIe without peer access), driver unknown, CUDA 12.8, "
        "NCCL 2.27.3, no RDMA, interfaces unknown"
    )


IB_LOG = """\
ft-0:7:7 [0] NCCL INFO NCCL version 2.29.7+cuda13.2
ft-0:7:19 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net.so
ft-0:7:19 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB eth0:10.0.0.4<0>
ft-0:7:19 [0] NCCL INFO Initialized NET plugin IB
ft-0:7:19 [0] NCCL INFO Using network IB
"""
SOCKET_LOG = """\
ft-0:7:19 [0] NCCL INFO NET/IB : No device found.
ft-0:7:19 [0] NCCL INFO NET/IB : Using [RO]; OOB eth0:10.0.4.51<0>
ft-0:7:19 [0] NCCL INFO Failed to initialize NET plugin IB
ft-0:7:19 [0] NCCL INFO NET/Socket : Using [0]eno1:172.22.116.89<0> [1]net1:192.168.193.155<0>
ft-0:7:19 [0] NCCL INFO Using network Socket
ft-0:7:19 [0] NCCL INFO comm 0x7f rank 0 nRanks 16 nNodes 2 localRanks 8 localRank 0 MNNVL 0
"""
EFA_LOG = """\
ft-0:21:21 [0] NCCL INFO NET/OFI Selected Provider is efa (found 4 nics)
ft-0:21:21 [0] NCCL INFO Using network AWS Libfabric
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (IB_LOG, NcclNetwork("IB", ("mlx5_0", "mlx5_1"))),
        (SOCKET_LOG, NcclNetwork("Socket", ("eno1", "net1"))),
        (EFA_LOG, NcclNetwork("AWS Libfabric")),
        ("ft-0:7:19 [0] NCCL INFO Bootstrap: Using eth0:10.0.0.4<0>\n", None),
        ("NCCL INFO Using network " + "x" * 500 + "\n", None),
        ("", None),
    ],
)
def test_the_network_is_read_from_nccls_log(
    tmp_path: Path, log: str, expected: NcclNetwork | None
) -> None:
    file = tmp_path / "nccl.log"
    file.write_text(log)
    assert read_network(file) == expected


def test_no_log_is_no_network(tmp_path: Path) -> None:
    assert read_network(tmp_path / "nccl.log") is None


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        (NcclNetwork("IB", ("mlx5_0",)), {}, "NCCL uses the network IB on mlx5_0 between"),
        (NcclNetwork("Socket", ("eth0",)), {"rdma": ()}, "sockets on eth0 between the nodes (the "
         "node has no active RDMA device)"),
        (NcclNetwork("Socket"), {"is_rdma_usable": False}, "the pod has no access: request them"),
        (NcclNetwork("Socket"), {}, "although the pod has RDMA devices: check NCCL_IB_HCA"),
        (NcclNetwork("Socket"), {"locked_bytes": 65536}, "limit of locked memory, 64 KiB"),
        (None, {}, "unknown"),
    ],
)  # fmt: skip
def test_slow_traffic_between_nodes_is_a_warning_with_its_cause(
    network: NcclNetwork | None, changes: dict[str, Any], words: str
) -> None:
    found = describe_network(network, Links(**{**vars(NODE.links), **changes}))
    assert words in found
    assert found.startswith("warning: ") == (network is not None and network.is_socket)


def test_nccl_writes_a_log_for_several_nodes_unless_the_user_configured_one(tmp_path: Path) -> None:
    file = tmp_path / "nccl-0.log"
    wanted = {
        "NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET", "NCCL_DEBUG_FILE": str(file),
    }  # fmt: skip

    def found(inherited: dict[str, str], **changes: Any) -> dict[str, str]:
        task = support.train_task("u", **{"accelerator": "nvidia", "nodes": 2} | changes)
        values = environment(task, 0, 0, inherited, nccl_file=file)
        return {name: value for name, value in values.items() if name.startswith("NCCL_")}

    assert found({}) == nccl_log.settings({}, file) == wanted
    assert found({"NCCL_IB_HCA": "mlx5"}) == wanted | {"NCCL_IB_HCA": "mlx5"}
    assert found({"NCCL_DEBUG": "WARN"}) == {"NCCL_DEBUG": "WARN"}
    assert found({}, nodes=1) == found({}, accelerator="cpu") == {}
