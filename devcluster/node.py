"""The processes of the node and their configuration: containerd, kubelet, kube-proxy, CoreDNS.

Only `write_files` writes to the disk; the other functions are pure. The programs keep their data in
the state folder, so that it can be found and removed. Only images are in the cache.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster import files, paths
from devcluster.components import Component
from devcluster.credentials import LOOPBACK, Credentials
from devcluster.images import PAUSE_IMAGE
from devcluster.probes import HttpProbe, NameProbe, SocketProbe


@dataclass(frozen=True)
class NodeSettings:
    """The folders of the node and the settings that depend on the machine."""

    folder: Path
    image_root: Path
    credentials: Credentials
    binary: Callable[[str], Path]
    cni_programs: Path
    resolver: Path
    has_upstream_resolver: bool

    @property
    def containerd_socket(self) -> Path:
        return self.folder / "containerd" / "containerd.sock"

    @property
    def kubelet_root(self) -> Path:
        return self.folder / "kubelet"


def write_files(settings: NodeSettings) -> None:
    texts = {
        "containerd.toml": containerd_config(settings),
        "cni/10-devcluster.conflist": cni_config(settings),
        f"certs.d/{LOOPBACK}:{paths.PORTS.registry}/hosts.toml": registry_hosts(),
        "kubelet.json": json.dumps(kubelet_config(settings), indent=1),
        "kube-proxy.json": json.dumps(kube_proxy_config(settings), indent=1),
        "Corefile": corefile(settings),
    }
    files.write_all(settings.folder, texts)


def containerd_config(settings: NodeSettings) -> str:
    folder = settings.folder
    return f"""version = 3
root = "{settings.image_root}"
state = "{folder}/containerd"
# They use /opt and /run/nri and are not needed.
disabled_plugins = [
  "io.containerd.image-verifier.v1.bindir", "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{settings.containerd_socket}"
[ttrpc]
  address = "{settings.containerd_socket}.ttrpc"

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "{folder}/s"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{folder}/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE, runc fails to lower oom_score_adj when it starts a container.
  restrict_oom_score_adj = true
  # The profile would remain in the kernel after `down`.
  disable_apparmor = true
  # In the state folder instead of /run/netns, so that they can be found and removed.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{settings.cni_programs}"]
    conf_dir = "{folder}/cni"
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{folder}/runc"
"""


def cni_config(settings: NodeSettings) -> str:
    bridge = {
        "type": "bridge",
        "bridge": paths.BRIDGE,
        "isGateway": True,
        # a pod that calls a Service can be its own backend
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": paths.POD_NETWORK, "gateway": paths.NODE_ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(settings.folder / "ipam"),
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": paths.NAME, "plugins": [bridge]}, indent=1)


def registry_hosts() -> str:
    return f"""server = "http://{LOOPBACK}:{paths.PORTS.registry}"
[host."http://{LOOPBACK}:{paths.PORTS.registry}"]
  capabilities = ["pull", "resolve", "push"]
"""


def kubelet_config(settings: NodeSettings) -> dict[str, object]:
    pair = settings.credentials.pair("kubelet")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": paths.NODE_ADDRESS,
        "port": paths.PORTS.kubelet,
        "readOnlyPort": 0,
        "healthzBindAddress": LOOPBACK,
        "healthzPort": paths.PORTS.kubelet_health,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(settings.credentials.authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pair.certificate),
        "tlsPrivateKeyFile": str(pair.key),
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "clusterDNS": [paths.NODE_ADDRESS],
        "clusterDomain": paths.CLUSTER_DOMAIN,
        "resolvConf": str(settings.resolver),
        "podLogsDir": str(settings.folder / "pod-logs"),
        "volumePluginDir": str(settings.folder / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{paths.NAME}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # The cluster does not own the machine: it reserves nothing and does not evict pods when the
        # disk is full.
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        # 100 disables garbage collection: images take minutes to build and push
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "makeIPTablesUtilChains": False,
    }


def kube_proxy_config(settings: NodeSettings) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(settings.credentials.kubeconfig("kube-proxy"))},
        "hostnameOverride": paths.NODE_NAME,
        "mode": "nftables",
        "clusterCIDR": paths.POD_NETWORK,
        "bindAddress": paths.NODE_ADDRESS,
        "nodePortAddresses": [f"{paths.NODE_ADDRESS}/32"],
        "healthzBindAddress": f"{LOOPBACK}:{paths.PORTS.kube_proxy_health}",
        "metricsBindAddress": f"{LOOPBACK}:{paths.PORTS.kube_proxy_metrics}",
        # 0 keeps the connection tracking settings of the machine
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def corefile(settings: NodeSettings) -> str:
    kubeconfig = settings.credentials.kubeconfig("coredns")
    forward = f"    forward . {settings.resolver}\n" if settings.has_upstream_resolver else ""
    return f""".:53 {{
    bind {paths.NODE_ADDRESS}
    errors
    health {LOOPBACK}:{paths.PORTS.coredns_health}
    kubernetes {paths.CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig} devcluster
        ttl 5
        fallthrough in-addr.arpa
    }}
{forward}}}
"""


def containerd(settings: NodeSettings) -> Component:
    command = (
        str(settings.binary("containerd")),
        "--config",
        str(settings.folder / "containerd.toml"),
        "--log-level=info",
    )
    # containerd searches PATH for its shim
    environment = {"PATH": f"{settings.binary('containerd').parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
    return Component("containerd", command, SocketProbe(settings.containerd_socket), environment)


def kubelet(settings: NodeSettings) -> Component:
    command = (
        str(settings.binary("kubelet")),
        f"--config={settings.folder / 'kubelet.json'}",
        f"--kubeconfig={settings.credentials.kubeconfig('kubelet')}",
        f"--root-dir={settings.kubelet_root}",
        f"--cert-dir={settings.folder / 'kubelet-certificates'}",
        f"--hostname-override={paths.NODE_NAME}",
        f"--node-ip={paths.NODE_ADDRESS}",
    )
    probe = HttpProbe(f"http://{LOOPBACK}:{paths.PORTS.kubelet_health}/healthz")
    return Component("kubelet", command, probe)


def kube_proxy(settings: NodeSettings) -> Component:
    command = (
        str(settings.binary("kube-proxy")),
        f"--config={settings.folder / 'kube-proxy.json'}",
    )
    probe = HttpProbe(f"http://{LOOPBACK}:{paths.PORTS.kube_proxy_health}/livez")
    return Component("kube-proxy", command, probe)


def coredns(settings: NodeSettings) -> Component:
    command = (str(settings.binary("coredns")), "-conf", str(settings.folder / "Corefile"))
    probe = NameProbe(paths.NODE_ADDRESS, f"kubernetes.default.svc.{paths.CLUSTER_DOMAIN}")
    return Component("coredns", command, probe)
