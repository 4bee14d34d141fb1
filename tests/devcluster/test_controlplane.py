"""The temporary control plane of a test starts quickly and is always removed."""

import json
import subprocess
from pathlib import Path

import pytest

from devcluster.controlplane import ControlPlane, free_ports

pytestmark = pytest.mark.integration


def kubectl(plane: ControlPlane, *arguments: str) -> str:
    command = [str(plane.kubectl), f"--kubeconfig={plane.kubeconfig}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_answers_counts_requests_and_leaves_nothing() -> None:
    with ControlPlane() as plane:
        folder = plane.kubeconfig.parent
        kubectl(plane, "create", "namespace", "counted")
        lines = [json.loads(line) for line in plane.audit_log.read_text().splitlines()]
        writes = [
            line
            for line in lines
            if line["verb"] == "create" and line["user"]["username"] == "devcluster-admin"
        ]
        assert [line["objectRef"]["name"] for line in writes] == ["counted"]
        assert {line["level"] for line in lines} == {"Metadata"}
    assert not folder.exists()
    assert processes_in(folder) == []


def test_it_is_gone_after_an_exception() -> None:
    with pytest.raises(RuntimeError, match="a test fails"), ControlPlane() as plane:
        folder = plane.kubeconfig.parent
        raise RuntimeError("a test fails")
    assert not folder.exists()
    assert processes_in(folder) == []


def test_rbac_is_on() -> None:
    with ControlPlane() as plane:
        answer = subprocess.run(
            [
                str(plane.kubectl),
                f"--kubeconfig={plane.kubeconfig}",
                "auth",
                "can-i",
                "get",
                "pods",
                "--as=nobody",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.stdout.strip() == "no"


def test_the_garbage_collector_runs_with_the_controller_manager() -> None:
    with ControlPlane(controller_manager=True) as plane:
        kubectl(plane, "create", "configmap", "owner")
        owner = json.loads(kubectl(plane, "get", "configmap", "owner", "-o", "json"))
        reference = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
        kubectl(plane, "create", "configmap", "owned")
        patch = json.dumps({"metadata": {"ownerReferences": [reference]}})
        kubectl(plane, "patch", "configmap", "owned", "--type=merge", f"--patch={patch}")
        kubectl(plane, "delete", "configmap", "owner")
        kubectl(plane, "wait", "--for=delete", "configmap/owned", "--timeout=30s")


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def processes_in(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            found.append(int(process.name))
    return found
