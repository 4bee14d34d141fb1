"""Checks of the machine and restored settings: capabilities, cgroups, sysctls, KUBECONFIG."""

import os
from pathlib import Path

import pytest

from devcluster import access, cgroups, network, packages, paths, preflight, sysctls

V1_MOUNTS = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
/dev/sda / ext4 rw 0 0
"""


def test_a_privileged_root_lacks_nothing() -> None:
    assert preflight.missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n") == []


def test_the_root_of_a_plain_container_lacks_two_capabilities() -> None:
    # What docker gives by default.
    missing = preflight.missing_capabilities("CapEff:\t00000000a80425fb\n")
    assert missing == ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]


def test_an_unsuitable_machine_gets_the_causes_and_the_alternatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = (lambda: "first reason", lambda: None, lambda: "second reason")
    monkeypatch.setattr(preflight, "CHECKS", checks)
    with pytest.raises(preflight.MachineError) as caught:
        preflight.check()
    text = str(caught.value)
    assert "  - first reason\n  - second reason\n" in text
    assert "kind" in text
    assert "finetune run" in text


def test_both_kinds_of_cgroup_hierarchies_are_found() -> None:
    found = cgroups.hierarchies(V1_MOUNTS)
    assert found == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]


def test_a_tree_of_cgroups_is_removed_from_its_leaves(tmp_path: Path) -> None:
    tree = tmp_path / paths.NAME
    (tree / "kubepods" / "besteffort" / "pod1").mkdir(parents=True)
    (tree / "kubepods" / "burstable").mkdir()
    assert cgroups.remove(tree)
    assert not tree.exists()


def test_kernel_settings_are_put_back_as_they_were_first(tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir()
    setting = tmp_path / "vm" / "overcommit_memory"
    record = tmp_path / "record.json"
    setting.write_text("0\n")
    sysctls.save(record, tmp_path)
    setting.write_text("1\n")
    # A second start after a killed instance sees the cluster's value and must not take it for the
    # machine's.
    sysctls.save(record, tmp_path)
    sysctls.restore(record, tmp_path)
    assert setting.read_text() == "0"
    assert not record.exists()


def test_our_own_kubeconfig_is_not_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(paths.kubeconfig()))
    assert access.foreign_kubeconfig() is None
    monkeypatch.delenv("KUBECONFIG")
    assert access.foreign_kubeconfig() is None


def test_another_kubeconfig_is_used_without_our_stores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/config")
    about = access.info()
    assert about["kubeconfig"] == "/somewhere/config"
    assert about["s3"] is None
    assert "export KUBECONFIG=/somewhere/config" in access.exports()


def test_system_folders_are_on_the_path_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/sbin")
    packages.extend_path()
    packages.extend_path()
    assert os.environ["PATH"] == "/usr/bin:/sbin:/usr/local/sbin:/usr/sbin"


UFW_AND_DOCKER = "-P INPUT DROP\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-A FORWARD -j DOCKER-USER\n"


def test_a_host_that_drops_packets_accepts_those_of_the_bridge() -> None:
    rules = network.accept_rules(UFW_AND_DOCKER)
    assert [rule[:3] for rule in rules] == [
        ("FORWARD", "-i", paths.BRIDGE),
        ("FORWARD", "-o", paths.BRIDGE),
        ("INPUT", "-i", paths.BRIDGE),
    ]


def test_a_host_that_accepts_everything_gets_no_rules() -> None:
    assert network.accept_rules("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n") == []


def test_the_rules_are_found_again_by_their_comment() -> None:
    rules = network.accept_rules(UFW_AND_DOCKER)
    listing = UFW_AND_DOCKER + "".join(f"-A {' '.join(rule)}\n" for rule in rules)
    assert network.own_rules(listing) == rules


def test_proxies_are_not_asked_for_this_machine() -> None:
    assert network.proxy_exceptions({}) == {}
    added = network.proxy_exceptions({"https_proxy": "http://proxy:1", "NO_PROXY": "example.org"})
    assert added["NO_PROXY"].startswith(f"example.org,{paths.NODE_ADDRESS},")
    assert added["no_proxy"] == added["NO_PROXY"]
