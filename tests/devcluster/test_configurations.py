"""The rendered configuration of the components."""

import json
import tomllib
from pathlib import Path

import pytest

from devcluster import components, files, network, node, paths, stores
from devcluster.components import ControlSettings
from devcluster.credentials import Credentials
from devcluster.images import PAUSE_IMAGE
from devcluster.node import NodeSettings
from devcluster.stores import StoreSettings

STATE = Path("/state")


def programs(name: str) -> Path:
    return Path("/programs") / name


@pytest.fixture
def credentials() -> Credentials:
    return Credentials(STATE / "credentials", "https://10.0.0.1:1")


@pytest.fixture
def here(credentials: Credentials) -> NodeSettings:
    return NodeSettings(
        folder=STATE,
        image_root=Path("/cache/containerd"),
        credentials=credentials,
        binary=programs,
        cni_programs=Path("/cni"),
        resolver=Path("/etc/resolv.conf"),
        has_upstream_resolver=True,
    )


def control_settings(
    credentials: Credentials, *, has_nodes: bool = True, has_controller_manager: bool = True
) -> ControlSettings:
    return ControlSettings(
        folder=STATE,
        credentials=credentials,
        address="10.0.0.1",
        apiserver_port=1,
        etcd_port=2,
        etcd_peer_port=3,
        controller_manager_port=4,
        scheduler_port=5,
        service_network="10.1.0.0/24",
        binary=programs,
        has_nodes=has_nodes,
        has_controller_manager=has_controller_manager,
    )


def test_containerd_keeps_images_in_the_cache_and_all_else_in_the_state(here: NodeSettings) -> None:
    config = tomllib.loads(node.containerd_config(here))
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    images = config["plugins"]["io.containerd.cri.v1.images"]
    assert config["root"] == "/cache/containerd"
    assert config["state"] == "/state/containerd"
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["netns_mounts_under_state_dir"] is True
    options = runtime["containerd"]["runtimes"]["runc"]["options"]
    assert options == {"SystemdCgroup": False, "Root": "/state/runc"}
    assert images["pinned_images"]["sandbox"] == PAUSE_IMAGE


def test_the_shims_folder_is_short_enough_for_containerd() -> None:
    assert len(str(paths.STATE / "s")) <= 38


def test_containerd_takes_the_registry_as_plain_http() -> None:
    hosts = tomllib.loads(node.registry_hosts())
    assert hosts["server"] == f"http://{stores.REGISTRY}"


def test_pods_get_addresses_of_the_bridge(here: NodeSettings) -> None:
    bridge = json.loads(node.cni_config(here))["plugins"][0]
    assert bridge["bridge"] == paths.BRIDGE
    assert bridge["ipam"]["ranges"] == [
        [{"subnet": paths.POD_NETWORK, "gateway": paths.NODE_ADDRESS}]
    ]
    assert bridge["ipam"]["dataDir"] == "/state/ipam"


def test_the_kubelet_keeps_images_and_puts_pods_under_our_cgroup(here: NodeSettings) -> None:
    config = node.kubelet_config(here)
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["serializeImagePulls"] is False
    assert config["cgroupRoot"] == f"/{paths.NAME}"
    assert config["failCgroupV1"] is False
    assert config["clusterDNS"] == [paths.NODE_ADDRESS]


def test_kube_proxy_uses_nftables_and_leaves_connection_tracking_alone(here: NodeSettings) -> None:
    config = node.kube_proxy_config(here)
    assert config["mode"] == "nftables"
    assert config["conntrack"] == {
        "maxPerCore": 0,
        "min": 0,
        "tcpEstablishedTimeout": "0s",
        "tcpCloseWaitTimeout": "0s",
    }


def test_coredns_forwards_only_where_there_is_somebody_to_ask(
    here: NodeSettings, credentials: Credentials
) -> None:
    assert "forward . /etc/resolv.conf" in node.corefile(here)
    alone = NodeSettings(
        STATE, STATE, credentials, programs, STATE, Path("/etc/resolv.conf"), False
    )
    assert "forward" not in node.corefile(alone)


def test_the_apiserver_has_rbac_an_audit_log_and_the_bridge_address(
    credentials: Credentials,
) -> None:
    command = components.apiserver(control_settings(credentials)).command
    assert command[0] == "/programs/kube-apiserver"
    assert "--authorization-mode=Node,RBAC" in command
    assert "--audit-log-path=/state/audit.log" in command
    assert "--advertise-address=10.0.0.1" in command
    assert not any("endpoint-reconciler-type" in flag for flag in command)


def test_only_the_apiserver_s_own_authority_speaks_for_others(credentials: Credentials) -> None:
    command = components.apiserver(control_settings(credentials)).command
    assert "--requestheader-client-ca-file=/state/credentials/front-proxy/ca.crt" in command
    assert "--client-ca-file=/state/credentials/ca.crt" in command
    assert "--requestheader-allowed-names=front-proxy-client" in command


def test_a_control_plane_without_nodes_advertises_nothing(credentials: Credentials) -> None:
    alone = control_settings(credentials, has_nodes=False, has_controller_manager=False)
    command = components.apiserver(alone).command
    assert "--endpoint-reconciler-type=none" in command
    assert "--disable-admission-plugins=ServiceAccount" in command


def test_secrets_never_stand_in_a_command_line() -> None:
    settings = StoreSettings(STATE, Path("/cache/registry"), programs, "root-secret", "user-secret")
    component = stores.s3(settings)
    assert not any("secret" in argument for argument in component.command)
    assert component.environment["ROOT_SECRET_KEY"] == "root-secret"


def test_pods_leave_the_machine_under_its_address() -> None:
    rules = network.nft_rules()
    assert f"table ip {paths.NAME}" in rules
    assert f'ip saddr {paths.POD_NETWORK} oifname != "{paths.BRIDGE}" masquerade' in rules


def test_a_file_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    files.write_all(tmp_path, {"one/kube-proxy.json": "{}"})
    written = (tmp_path / "one" / "kube-proxy.json").stat().st_mtime_ns
    files.write_all(tmp_path, {"one/kube-proxy.json": "{}"})
    assert (tmp_path / "one" / "kube-proxy.json").stat().st_mtime_ns == written
    files.write_all(tmp_path, {"one/kube-proxy.json": "{ }"})
    assert (tmp_path / "one" / "kube-proxy.json").read_text() == "{ }"
