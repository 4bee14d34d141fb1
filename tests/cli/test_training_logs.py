"""The doctor's report of what the newest training on GPUs logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_cli.cluster.errors import ApiError, UnreachableError
from finetune_cli.commands.doctor.training_logs import log_findings, newest_gpu_pods, read_logs
from finetune_trainer.hardware.description import describe_network, describe_node
from finetune_trainer.hardware.nccl_log import NcclNetwork
from tests.trainer.test_hardware import NODE

NODE_LINE = describe_node(NODE)
FAST = describe_network(NcclNetwork("IB", ("mlx5_0",)), NODE.links)
SLOW = describe_network(NcclNetwork("Socket", ("eth0",)), NODE.links)


def a_pod(
    name: str, created: str, *, attempt: int = 1, resource: str = "nvidia.com/gpu",
    phase: str | None = "Running",
) -> JsonObject:  # fmt: skip
    labels = {names.LABEL_UID: name.partition("-")[0], names.LABEL_ATTEMPT: str(attempt)}
    return {
        "metadata": {"name": name, "creationTimestamp": created, "labels": labels},
        "spec": {"containers": [{"resources": {"limits": {resource: "8"}}}, {}]},
        "status": {"phase": phase},
    }


PODS = [
    a_pod("old-a1-0", "2026-11-20T00:00:00Z"),
    a_pod("new-a1-0", "2026-11-21T00:00:00Z"),
    a_pod("new-a2-1", "2026-11-22T00:00:00Z", attempt=2),
    a_pod("new-a2-0", "2026-11-22T00:00:01Z", attempt=2, phase="Failed"),
    a_pod("new-a2-2", "2026-11-22T00:00:02Z", attempt=2, phase="Pending"),
    a_pod("cpu-a1-0", "2026-11-23T00:00:00Z", resource="memory"),
    {"metadata": {"name": "bare"}},
]


class FakeCluster:
    """The requests of `read_logs`."""

    namespace = "ml"

    def __init__(self, logs: dict[str, list[bytes] | int]) -> None:
        self._logs = logs

    def request(self, method: str, path: str, *, query: dict[str, str]) -> Any:
        assert (method, path) == ("GET", "/api/v1/namespaces/ml/pods")
        assert query == {"labelSelector": "finetune.dev/component=train"}
        return {"items": PODS}

    @contextmanager
    def lines(self, path: str, query: Any, seconds: float) -> Iterator[Iterator[bytes]]:
        pod = path.removeprefix("/api/v1/namespaces/ml/pods/").removesuffix("/log")
        found = self._logs[pod]
        if found == 0:
            raise UnreachableError.of("https://host", "timed out")
        if isinstance(found, int):
            raise ApiError("the container has no log", "", found, {})
        yield iter(found)


def test_the_pods_of_the_newest_attempt_on_gpus_are_read() -> None:
    assert newest_gpu_pods(PODS) == ["new-a2-0", "new-a2-1"]
    assert newest_gpu_pods([]) == []
    many = [a_pod(f"x-a1-{index}", "2026-11-20T00:00:00Z") for index in range(9)]
    assert len(newest_gpu_pods(many)) == 4


def test_logs_that_do_not_exist_are_left_out() -> None:
    cluster: Any = FakeCluster({"new-a2-0": [b"one", b"\xff"], "new-a2-1": 400})
    assert read_logs(cluster) == [["one", "\ufffd"]]
    lost: Any = FakeCluster({"new-a2-0": 0, "new-a2-1": [b"two"]})
    assert read_logs(lost) == [["two"]]
    forbidden: Any = FakeCluster({"new-a2-0": 403, "new-a2-1": 403})
    with pytest.raises(ApiError):
        read_logs(forbidden)


def test_hardware_and_network_are_reported_as_the_pods_logged_them() -> None:
    logs = [["downloaded", NODE_LINE, FAST, "step 1"], [NODE_LINE + "\r", FAST], []]
    nodes, network = log_findings(logs)
    assert (nodes.level, network.level) == ("ok", "ok")
    assert nodes.detail.startswith("2 pods with 8 x NVIDIA H100 80GB HBM3 (79.2 GiB, 18 NVLinks")
    assert "driver 580.65.06, CUDA 13.0" in nodes.detail
    assert network.detail == "NCCL uses the network IB on mlx5_0 between the nodes"


def test_sockets_between_nodes_are_a_warning() -> None:
    nodes, network = log_findings([[NODE_LINE, FAST], ["node: another one", SLOW]])
    assert nodes.detail.endswith("; 1 pod with another one")
    assert (network.level, bool(network.remedy)) == ("warning", True)
    assert network.detail.startswith("NCCL uses TCP sockets on eth0")


def test_a_training_on_one_node_has_no_network_and_another_log_says_nothing() -> None:
    assert [it.check for it in log_findings([[NODE_LINE]])] == ["newest training"]
    assert list(log_findings([["no such line", "x" * 10**6]])) == []
    assert list(log_findings([])) == []
