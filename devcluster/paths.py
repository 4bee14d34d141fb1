"""Names, folders, addresses and ports: everything by which an instance is found again.

The rule of this room: constants and path arithmetic, no side effects. There is one cluster a
machine, because a bridge, an nft table and a port are the machine's; so its state lies in one fixed
folder, and only the cache is the user's own.
"""

import os
from dataclasses import dataclass
from pathlib import Path

NAME = "finetune-devcluster"
NODE_NAME = "devcluster"

# The folder is short on purpose: a Unix socket's path ends at 107 characters, and containerd allows
# 38 for its shims' folder.
STATE = Path("/var/lib") / NAME

BRIDGE = "ftdc0"
# 10.213/16 and 10.214/16 are nobody's default: docker takes 172.17, kubeadm and kind 10.244 and
# 10.96, k3s 10.42 and 10.43.
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
    """Fixed, so that an image's name stays the same; all below 32768, where the kernel picks no
    port of its own.
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
    """Binaries, image store and registry: what is expensive to make again. Removed by nobody but
    `down --all`.
    """
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
