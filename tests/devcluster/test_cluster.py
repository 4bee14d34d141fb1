"""The development cluster, as root. No other process may use the cluster during these tests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devcluster import cgroups, instance, leftovers, paths, processes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    # A cold build of the programs takes ten minutes.
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif("KUBECONFIG" in os.environ, reason="KUBECONFIG names another cluster"),
]
ROOT = Path(__file__).parents[2]


def devcluster(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "devcluster", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout


def test_up_twice_is_once() -> None:
    devcluster("up")
    before = instance.running()
    started = time.monotonic()
    devcluster("up")
    assert time.monotonic() - started < 2
    assert instance.running() == before


def test_status_names_every_component_and_says_ok() -> None:
    devcluster("up")
    table = devcluster("status")
    for name in ("etcd", "kube-apiserver", "kubelet", "containerd", "s3", "registry", "coredns"):
        assert name in table
    assert "not running" not in table


def test_info_is_json_that_leads_to_the_cluster() -> None:
    devcluster("up")
    about = json.loads(devcluster("info"))
    kubectl = [f"{about['bin']}/kubectl", f"--kubeconfig={about['kubeconfig']}"]
    nodes = subprocess.run(
        [*kubectl, "get", "nodes", "-o", "name"], capture_output=True, text=True, check=True
    )
    assert nodes.stdout.strip() == f"node/{paths.NODE_NAME}"
    assert set(about["s3"]) == {"endpoint", "region", "accessKey", "secretKey", "bucket"}


def test_a_dead_component_is_started_again_and_the_others_stay() -> None:
    devcluster("up")
    before = instance.running()
    processes.kill([before["s3"]])
    assert "not running" in devcluster("status", code=1)
    devcluster("up")
    after = instance.running()
    assert after["s3"] != before["s3"]
    assert {name: after[name] for name in after if name != "s3"} == {
        name: before[name] for name in before if name != "s3"
    }


def test_a_killed_cluster_is_cleaned_by_the_next_up() -> None:
    devcluster("up")
    for process in leftovers.own_daemons():
        process.send(signal.SIGKILL)
    for folder in cgroups.own_folders():
        for pid in cgroups.processes(folder):
            container = processes.identify("container", pid)
            if container is not None:
                container.send(signal.SIGKILL)
    output = devcluster("up")
    assert "Removed the remains of an earlier instance" in output
    devcluster("status")


def test_down_leaves_nothing_and_down_again_is_no_error() -> None:
    devcluster("up")
    assert "The cluster is down." in devcluster("down")
    assert leftovers.own_daemons() == []
    assert leftovers.own_mounts(leftovers.MOUNTS.read_text(), [paths.STATE]) == []
    assert cgroups.own_folders() == []
    assert not paths.STATE.exists()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    assert paths.BRIDGE not in links.stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert leftovers.own_tables(tables.stdout) == []
    assert "No cluster was running." in devcluster("down")
    assert "not running" in devcluster("status", code=1)
    devcluster("up")
