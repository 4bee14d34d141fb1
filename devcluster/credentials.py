"""The identities of an instance: certificates and kubeconfigs of the control plane and the node.

Every component has its own identity, so that the audit log names it and RBAC limits it.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

from devcluster import certificates
from devcluster.certificates import Authority, Pair, Subject

LOOPBACK = "127.0.0.1"

APISERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)

# Common name and group of each client. The default roles of Kubernetes name the users `system:…`.
CLIENTS = {
    "admin": Subject("devcluster-admin", "system:masters"),
    "kube-controller-manager": Subject("system:kube-controller-manager"),
    "kube-scheduler": Subject("system:kube-scheduler"),
    "kube-proxy": Subject("system:kube-proxy"),
    "coredns": Subject("system:coredns"),
    # the API server as a client of the kubelet, for logs, exec, and port-forward
    "apiserver-kubelet-client": Subject("apiserver-kubelet-client"),
}


FRONT_PROXY = "front-proxy-client"


class Credentials:
    """The folder with the certificates, keys, and kubeconfigs of an instance."""

    def __init__(self, folder: Path, apiserver_url: str) -> None:
        self.folder = folder
        self.apiserver_url = apiserver_url
        self.authority = Authority(folder)
        # A separate authority: its certificates allow a client to act for other users, as the API
        # server does with aggregated APIs.
        self.front_proxy = Authority(folder / "front-proxy")
        self.service_account_key = folder / "service-account.key"
        self.service_account_public_key = folder / "service-account.pub"

    def create(self, apiserver_addresses: Sequence[str]) -> None:
        """Create the credentials of a control plane."""
        self.authority.create()
        self.front_proxy.create()
        self.front_proxy.issue(FRONT_PROXY, Subject(FRONT_PROXY))
        certificates.key(self.service_account_key)
        certificates.public_key(self.service_account_key, self.service_account_public_key)
        addresses = list(dict.fromkeys([LOOPBACK, *apiserver_addresses]))
        self.authority.issue("apiserver", Subject("kube-apiserver", "", addresses, APISERVER_NAMES))
        # one pair for all servers on loopback: etcd, its client, and the health endpoints
        self.authority.issue("loopback", Subject("loopback", "", [LOOPBACK], ["localhost"]))
        for name, subject in CLIENTS.items():
            self.authority.issue(name, subject)
            self._write_kubeconfig(name)

    def create_node(self, node: str, address: str) -> None:
        """Create the identity of the kubelet, for the Node authorizer and for the API server."""
        subject = Subject(f"system:node:{node}", "system:nodes", [address, LOOPBACK], [node])
        self.authority.issue("kubelet", subject)
        self._write_kubeconfig("kubelet")

    def pair(self, name: str) -> Pair:
        return self.authority.pair(name)

    def kubeconfig(self, name: str) -> Path:
        return self.folder / f"{name}.kubeconfig"

    def _write_kubeconfig(self, name: str) -> None:
        pair = self.pair(name)
        text = render_kubeconfig(
            self.apiserver_url,
            self.authority.certificate.read_bytes(),
            pair.certificate.read_bytes(),
            pair.key.read_bytes(),
        )
        path = self.kubeconfig(name)
        path.touch(mode=0o600)
        path.write_text(text)


def render_kubeconfig(url: str, authority: bytes, certificate: bytes, key: bytes) -> str:
    """A kubeconfig with embedded certificates, so that it can be copied."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return f"""apiVersion: v1
kind: Config
current-context: devcluster
clusters:
- name: devcluster
  cluster:
    server: {url}
    certificate-authority-data: {encoded(authority)}
contexts:
- name: devcluster
  context: {{cluster: devcluster, user: devcluster}}
users:
- name: devcluster
  user:
    client-certificate-data: {encoded(certificate)}
    client-key-data: {encoded(key)}
"""
