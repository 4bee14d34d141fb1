"""The address of the API server, its authority, and the gateway's own credential.

They come from the ServiceAccount that Kubernetes mounts into a pod, or from a kubeconfig. Client
certificates are never used: one belongs to a connection, and every request of a caller on that
connection would have the rights of the gateway.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from finetune_gateway.kube.own_token import OwnToken

MOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MOST_BYTES = 2**20  # of a kubeconfig


@dataclass(frozen=True)
class Server:
    """How the gateway reaches the API server."""

    url: str  # without a trailing slash
    tls: ssl.SSLContext | None  # None: plain HTTP on this machine
    token: OwnToken | None  # None: the gateway cannot impersonate anyone

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        is_plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"{self.url!r} is not the address of an API server")
        if parts.scheme != "https" and not is_plain:
            raise ValueError(f"the API server {self.url} has no TLS; tokens need https://")

    @property
    def host(self) -> str:
        """The name or the address, without brackets."""
        return urlsplit(self.url).hostname or ""


def is_loopback(host: str) -> bool:
    """Whether a host name or an address is this machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def server_of_pod(environment: Mapping[str, str], mount: Path = MOUNT) -> Server:
    """The API server of the cluster in which this pod runs. Raises ValueError."""
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ValueError(
            "this process does not run in a pod: KUBERNETES_SERVICE_HOST is not set. Give the "
            "address of the API server with --kubeconfig"
        )
    where = f"[{host}]" if ":" in host else host
    authority = mount / "ca.crt"
    try:
        tls = ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        raise ValueError(
            f"the authority of the API server, {authority}, cannot be read: {error}. Mount the "
            "token of the ServiceAccount (automountServiceAccountToken)"
        ) from error
    return Server(f"https://{where}:{port}", tls, OwnToken(file=mount / "token"))


def server_of_kubeconfig(path: Path) -> Server:
    """The API server of the current context. Raises ValueError with the file and the field.

    Only the address, the authority, and a token of the user are read.
    """
    try:
        with path.open("rb") as opened:
            config = yaml.safe_load(opened.read(MOST_BYTES))
        cluster, user = _current(config)
        url = str(cluster.get("server") or "").rstrip("/")
        tls = None if url.startswith("http://") else _tls(cluster, path.parent)
        return Server(url, tls, _token(user, path.parent))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ValueError(f"kubeconfig {path}: {error}") from error


def _current(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of the current context."""
    if not isinstance(config, dict):
        raise ValueError("the file has no settings")
    context = _entry(config, "contexts", "context", config.get("current-context"))
    cluster = _entry(config, "clusters", "cluster", context.get("cluster"))
    user = _entry(config, "users", "user", context["user"]) if context.get("user") else {}
    return cluster, user


def _entry(config: dict[str, Any], plural: str, kind: str, name: object) -> dict[str, Any]:
    """The settings with a name in one of the three lists of a kubeconfig."""
    entries = config.get(plural)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and name and entry.get("name") == name:
            found = entry.get(kind)
            return found if isinstance(found, dict) else {}
    raise ValueError(f"{plural} has no entry with the name {str(name)[:80]!r}")


def _tls(cluster: dict[str, Any], folder: Path) -> ssl.SSLContext:
    """Trust the authority of the cluster, or the machine's authorities if it has none."""
    if cluster.get("insecure-skip-tls-verify"):
        raise ValueError(
            "insecure-skip-tls-verify would send the tokens of callers to any server. Set "
            "certificate-authority"
        )
    if data := cluster.get("certificate-authority-data"):
        try:
            text = base64.b64decode(str(data), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError("certificate-authority-data is not a certificate") from error
        return ssl.create_default_context(cadata=text)
    if file := cluster.get("certificate-authority"):
        return ssl.create_default_context(cafile=str(folder / str(file)))
    return ssl.create_default_context()


def _token(user: dict[str, Any], folder: Path) -> OwnToken | None:
    if file := user.get("tokenFile"):
        return OwnToken(file=folder / str(file))
    if token := user.get("token"):
        return OwnToken(str(token))
    return None
