"""Names, folders, addresses, and ports, by which commands find an instance. No side effects.

There is one cluster per machine, because its bridge, nft table, and ports are global. Its state is
in one fixed folder; only the cache is per user.
"""

import os
from dataclasses import dataclass
from pathlib import Path

NAME = "finetune-devcluster"
NODE_NAME = "devcluster"

# The path is short because the path of a Unix socket is limited to 107 characters, and containerd
# allows 38 for the folder of its shims.
STATE = Path("/var/lib") / NAME

BRIDGE = "ftdc0"
# 10.213/16 and 10.214/16 are not the default of any common tool: docker uses 172.17, kubeadm and
# kind use 10.244 and 10.96, and k3s uses 10.42 and 10.43.
NODE_ADDRESS = "10.213.0.1"
POD_NETWORK = "10.213.0.0/22"
POD_PREFIX_LENGTH = 22
SERVICE_NETWORK = "10.214.0.0/24"
APISERVER_SERVICE_ADDRESS = "10.214.0.1"
CLUSTER_DOMAIN = "cluster.local"

REGION = "us-east-1"
BUCKET = "finetune"
S3_ACCESS_KEY = "finetune"


@dataclass(frozen=True)
class Ports:
    """Fixed ports, so that image names stay the same.

    All are below 32768, where the ephemeral ports of the kernel start.
    """

    apiserver: int = 18443
    etcd: int = 18379
    etcd_peer: int = 18380
    controller_manager: int = 18257
    scheduler: int = 18259
    kubelet: int = 18250
    kubelet_health: int = 18248
    kube_proxy_health: int = 18256
    kube_proxy_metrics: int = 18249
    coredns_health: int = 18053
    registry: int = 18500
    s3: int = 18333


PORTS = Ports()


def cache_folder() -> Path:
    """The folder for binaries, images, and the registry, which are expensive to rebuild."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / NAME


def containerd_root() -> Path:
    return cache_folder() / "containerd"


def registry_root() -> Path:
    return cache_folder() / "registry"


def kubeconfig() -> Path:
    return STATE / "kubeconfig"


def audit_log() -> Path:
    return STATE / "audit.log"


def log_file(component: str) -> Path:
    return STATE / "logs" / f"{component}.log"
