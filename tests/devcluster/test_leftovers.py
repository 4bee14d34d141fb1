"""Only objects of this cluster are found, by name."""

import json
from pathlib import Path

import pytest

from devcluster import leftovers, paths

BIN = f"/home/somebody/.cache/{paths.NAME}/bin"

MOUNTINFO = f"""\
22 28 0:21 / /proc rw,relatime - proc proc rw
35 28 0:31 / {paths.STATE}/kubelet/pods/1/volumes/kubernetes.io~projected/token rw - tmpfs tmpfs rw
36 28 0:32 / {paths.STATE}/containerd/tasks/k8s.io/a/rootfs rw - overlay o rw
37 36 0:33 / {paths.STATE}/containerd/with\\040blank rw - tmpfs tmpfs rw
38 28 0:34 / {paths.STATE}-of-another/kubelet rw - tmpfs tmpfs rw
39 28 0:35 / /var/lib/containers/storage/overlay/b/merged rw - overlay overlay rw
"""


def test_mounts_in_our_folders_are_found_the_last_one_first() -> None:
    found = leftovers.own_mounts(MOUNTINFO, [paths.STATE])
    assert found == [
        f"{paths.STATE}/containerd/with blank",
        f"{paths.STATE}/containerd/tasks/k8s.io/a/rootfs",
        f"{paths.STATE}/kubelet/pods/1/volumes/kubernetes.io~projected/token",
    ]


def test_a_mount_at_the_folder_itself_is_found() -> None:
    line = f"35 28 0:31 / {paths.STATE} rw - tmpfs tmpfs rw\n"
    assert leftovers.own_mounts(line, [paths.STATE]) == [str(paths.STATE)]


def test_the_bridge_and_what_hangs_on_it_are_found() -> None:
    links = [
        {"ifname": "lo"},
        {"ifname": "docker0"},
        {"ifname": paths.BRIDGE},
        {"ifname": "veth1", "master": paths.BRIDGE},
        {"ifname": "veth2", "master": "docker0"},
    ]
    assert leftovers.own_links(json.dumps(links)) == ["veth1", paths.BRIDGE]


def test_no_links_are_found_without_an_answer() -> None:
    assert leftovers.own_links("") == []


def test_only_our_tables_and_those_of_kube_proxy_are_found() -> None:
    listing = f"""table ip nat
table ip {paths.NAME}
table inet firewalld
table ip kube-proxy
table ip6 kube-proxy
table ip6 {paths.NAME}-of-another
"""
    assert leftovers.own_tables(listing) == [
        ("ip", "kube-proxy"),
        ("ip6", "kube-proxy"),
        ("ip", paths.NAME),
    ]


def test_the_tables_of_another_cluster_are_left_alone() -> None:
    assert leftovers.own_tables("table ip nat\ntable ip kube-proxy\ntable ip6 kube-proxy\n") == []


@pytest.mark.parametrize(
    ("executable", "command"),
    [
        (f"{BIN}/etcd-0123/etcd", f"etcd --data-dir={paths.STATE}/etcd"),
        (f"{BIN}/etcd-0123/etcd (deleted)", f"etcd --data-dir={paths.STATE}/etcd"),
        (f"{BIN}/containerd-1/containerd-shim-runc-v2", f"shim -address {paths.STATE}/c.sock"),
    ],
)
def test_our_daemons_are_found(executable: str, command: str) -> None:
    assert leftovers.is_own_daemon(executable, command)


@pytest.mark.parametrize(
    ("executable", "command"),
    [
        # A test's throw-away control plane.
        (f"{BIN}/etcd-0123/etcd", "etcd --data-dir=/tmp/finetune-control-plane-x/etcd"),
        # Somebody's own kubectl, and somebody's own etcd.
        (f"{BIN}/kubernetes-1/kubectl", f"kubectl --kubeconfig={paths.STATE}/kubeconfig get -w"),
        ("/usr/bin/etcd", f"etcd --data-dir={paths.STATE}/etcd"),
        ("/usr/bin/vim", f"vim {paths.STATE}/Corefile"),
        (f"{BIN}/etcd-0123/etcd", f"etcd --data-dir={paths.STATE}-of-another/etcd"),
    ],
)
def test_other_peoples_processes_are_not(executable: str, command: str) -> None:
    assert not leftovers.is_own_daemon(executable, command)


def test_shared_folders_come_before_their_parents() -> None:
    folders = leftovers.SHARED_FOLDERS
    for number, folder in enumerate(folders):
        assert not any(later.is_relative_to(folder) for later in folders[number + 1 :])
    assert Path("/var/lib") not in folders
