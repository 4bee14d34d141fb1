"""A running cluster on disk: its secrets, processes, and settings.

Everything is derived from the state folder, so that later commands see the same cluster as `up`.
"""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from devcluster import gotools, network, packages, paths, processes
from devcluster.components import Component, ControlSettings
from devcluster.credentials import Credentials
from devcluster.node import NodeSettings
from devcluster.stores import StoreSettings

APISERVER_URL = f"https://{paths.NODE_ADDRESS}:{paths.PORTS.apiserver}"
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


@dataclass(frozen=True)
class Secrets:
    """The two secrets of the S3 server, random for each instance."""

    root: str
    user: str


def record_file() -> Path:
    return paths.STATE / "processes.json"


def create_secrets() -> Secrets:
    made = Secrets(root=secrets.token_urlsafe(30), user=secrets.token_urlsafe(30))
    path = paths.STATE / "secrets.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(made)))
    return made


def read_secrets() -> Secrets:
    return Secrets(**json.loads((paths.STATE / "secrets.json").read_text()))


def credentials() -> Credentials:
    return Credentials(paths.STATE / "credentials", APISERVER_URL)


def control_settings() -> ControlSettings:
    return ControlSettings(
        folder=paths.STATE,
        credentials=credentials(),
        address=paths.NODE_ADDRESS,
        apiserver_port=paths.PORTS.apiserver,
        etcd_port=paths.PORTS.etcd,
        etcd_peer_port=paths.PORTS.etcd_peer,
        controller_manager_port=paths.PORTS.controller_manager,
        scheduler_port=paths.PORTS.scheduler,
        service_network=paths.SERVICE_NETWORK,
        binary=gotools.binary,
    )


def node_settings() -> NodeSettings:
    resolver = next((path for path in RESOLVERS if path.exists()), RESOLVERS[-1])
    servers = resolver.read_text() if resolver.exists() else ""
    return NodeSettings(
        folder=paths.STATE,
        image_root=paths.containerd_root(),
        credentials=credentials(),
        binary=gotools.binary,
        cni_programs=packages.cni_folder() or packages.CNI_FOLDERS[0],
        resolver=resolver,
        has_upstream_resolver="nameserver" in servers,
    )


def store_settings(of_instance: Secrets) -> StoreSettings:
    return StoreSettings(
        folder=paths.STATE,
        registry_root=paths.registry_root(),
        binary=gotools.binary,
        root_secret=of_instance.root,
        user_secret=of_instance.user,
    )


def running() -> dict[str, processes.Process]:
    """The recorded processes that are still running, by component."""
    recorded = processes.read_record(record_file())
    return {name: process for name, process in recorded.items() if process.is_running()}


def start(component: Component) -> processes.Process:
    """Start a component and record it, so that an interrupted `up` leaves no unknown process."""
    process = processes.start(
        component.name,
        component.command,
        paths.log_file(component.name),
        {**network.proxy_exceptions(os.environ), **component.environment},
    )
    recorded = processes.read_record(record_file())
    processes.write_record(record_file(), {**recorded, component.name: process}.values())
    return process
