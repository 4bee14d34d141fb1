"""The processes of the control plane as values: command lines and health probes. Pure.

The development cluster and the control planes of tests share them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devcluster import files
from devcluster.credentials import FRONT_PROXY, LOOPBACK, Credentials
from devcluster.probes import HttpProbe, Probe

# Every request has one line, when its response is complete, so that tests can count them. A watch
# has two lines (start and end), and health checks have none.
AUDIT_POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
- level: Metadata
"""


@dataclass(frozen=True)
class Component:
    """A process: its command line and its health probe."""

    name: str
    command: tuple[str, ...]
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_seconds: float = 60.0


@dataclass(frozen=True)
class ControlSettings:
    """The differences between the development cluster and the control plane of a test."""

    folder: Path
    credentials: Credentials
    address: str
    apiserver_port: int
    etcd_port: int
    etcd_peer_port: int
    controller_manager_port: int
    scheduler_port: int
    service_network: str
    binary: Callable[[str], Path]
    # Without nodes, an advertised address is useless, and the API server rejects a loopback
    # address.
    has_nodes: bool = True
    has_controller_manager: bool = True
    features: tuple[str, ...] = ()  # alpha ones that are enabled
    apis: tuple[str, ...] = ()  # `group/version` of alpha APIs that are served

    @property
    def feature_flags(self) -> dict[str, str]:
        gates = ",".join(f"{name}=true" for name in self.features)
        return {"feature-gates": gates} if gates else {}

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    @property
    def etcd_url(self) -> str:
        return f"https://{LOOPBACK}:{self.etcd_port}"


def write_control_files(settings: ControlSettings) -> None:
    files.write_all(settings.folder, {"audit-policy.yaml": AUDIT_POLICY})


def etcd(settings: ControlSettings) -> Component:
    pair = settings.credentials.pair("loopback")
    authority = settings.credentials.authority.certificate
    peer_url = f"https://{LOOPBACK}:{settings.etcd_peer_port}"
    flags = {
        "name": "devcluster",
        "data-dir": settings.folder / "etcd",
        "listen-client-urls": settings.etcd_url,
        "advertise-client-urls": settings.etcd_url,
        "listen-peer-urls": peer_url,
        "initial-advertise-peer-urls": peer_url,
        "initial-cluster": f"devcluster={peer_url}",
        "cert-file": pair.certificate,
        "key-file": pair.key,
        "client-cert-auth": "true",
        "trusted-ca-file": authority,
        "peer-cert-file": pair.certificate,
        "peer-key-file": pair.key,
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": authority,
        # the data are temporary, so waiting for the disk is not necessary
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }
    probe = HttpProbe(f"{settings.etcd_url}/health", authority, pair)
    return Component("etcd", _command(settings, "etcd", flags), probe)


def apiserver(settings: ControlSettings) -> Component:
    credentials = settings.credentials
    serving = credentials.pair("apiserver")
    loopback = credentials.pair("loopback")
    kubelet_client = credentials.pair("apiserver-kubelet-client")
    authority = credentials.authority.certificate
    front_proxy = credentials.front_proxy.pair(FRONT_PROXY)
    flags = {
        "bind-address": settings.address,
        "advertise-address": settings.address,
        "secure-port": settings.apiserver_port,
        "etcd-servers": settings.etcd_url,
        "etcd-cafile": authority,
        "etcd-certfile": loopback.certificate,
        "etcd-keyfile": loopback.key,
        "tls-cert-file": serving.certificate,
        "tls-private-key-file": serving.key,
        "client-ca-file": authority,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": settings.service_network,
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": credentials.service_account_public_key,
        "service-account-signing-key-file": credentials.service_account_key,
        "kubelet-certificate-authority": authority,
        "kubelet-client-certificate": kubelet_client.certificate,
        "kubelet-client-key": kubelet_client.key,
        "kubelet-preferred-address-types": "InternalIP",
        # for aggregated APIs (APIService)
        "requestheader-client-ca-file": credentials.front_proxy.certificate,
        "requestheader-allowed-names": FRONT_PROXY,
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": front_proxy.certificate,
        "proxy-client-key-file": front_proxy.key,
        "audit-policy-file": settings.folder / "audit-policy.yaml",
        "audit-log-path": settings.audit_log,
        "audit-log-format": "json",
        # Megabytes before a rotation. Tests count lines, so that it must never happen.
        "audit-log-maxsize": 100_000,
    }
    flags |= settings.feature_flags
    if settings.apis:
        flags["runtime-config"] = ",".join(f"{name}=true" for name in settings.apis)
    if not settings.has_nodes:
        flags["endpoint-reconciler-type"] = "none"
    if not settings.has_controller_manager:
        # no controller creates the default ServiceAccount that this plugin waits for
        flags["disable-admission-plugins"] = "ServiceAccount"
    probe = HttpProbe(f"{credentials.apiserver_url}/readyz", authority, credentials.pair("admin"))
    return Component("kube-apiserver", _command(settings, "kube-apiserver", flags), probe)


def controller_manager(settings: ControlSettings) -> Component:
    credentials = settings.credentials
    kubeconfig = credentials.kubeconfig("kube-controller-manager")
    flags = {
        **_loopback_server(settings, settings.controller_manager_port),
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "root-ca-file": credentials.authority.certificate,
        "service-account-private-key-file": credentials.service_account_key,
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        **settings.feature_flags,
    }
    if not settings.has_nodes:
        # Tests start many Jobs at once, and no kubelet says that the nodes they create are alive.
        flags |= {"kube-api-qps": 1000, "kube-api-burst": 2000, "node-monitor-grace-period": "1h"}
    name = "kube-controller-manager"
    probe = _loopback_probe(settings, settings.controller_manager_port)
    return Component(name, _command(settings, name, flags), probe)


def scheduler(settings: ControlSettings) -> Component:
    kubeconfig = settings.credentials.kubeconfig("kube-scheduler")
    flags = {
        **_loopback_server(settings, settings.scheduler_port),
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "leader-elect": "false",
    }
    probe = _loopback_probe(settings, settings.scheduler_port)
    return Component("kube-scheduler", _command(settings, "kube-scheduler", flags), probe)


def _loopback_server(settings: ControlSettings, port: int) -> dict[str, object]:
    pair = settings.credentials.pair("loopback")
    return {
        "bind-address": LOOPBACK,
        "secure-port": port,
        "tls-cert-file": pair.certificate,
        "tls-private-key-file": pair.key,
    }


def _loopback_probe(settings: ControlSettings, port: int) -> HttpProbe:
    url = f"https://{LOOPBACK}:{port}/healthz"
    return HttpProbe(url, settings.credentials.authority.certificate)


def _command(
    settings: ControlSettings, program: str, flags: Mapping[str, object]
) -> tuple[str, ...]:
    return (
        str(settings.binary(program)),
        *(f"--{name}={value}" for name, value in flags.items()),
    )
