"""A temporary control plane for integration tests: etcd and kube-apiserver without root and nodes.

It shares command lines and certificates with the development cluster. It uses free loopback ports
and one temporary folder, and it removes everything, no matter how the test ends.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from devcluster import components, gotools, processes
from devcluster.components import Component, ControlSettings
from devcluster.credentials import LOOPBACK, Credentials
from devcluster.probes import HttpProbe, wait_until

START_ATTEMPTS = 2


class ControlPlaneError(Exception):
    """A process did not start; the message ends with its last log lines."""


class ControlPlane:
    """A context manager for a control plane.

    >>> with ControlPlane() as plane:
    ...     subprocess.run([plane.kubectl, "--kubeconfig", plane.kubeconfig, "get", "namespaces"])

    RBAC is enabled, and every request is one JSON line of `audit_log` (level Metadata). With
    `controller_manager`, the controllers for namespaces, garbage collection, Jobs, and others run.
    Without it, only the API responds, and the start takes about six seconds. There is no node, so
    no pod runs. `crds` are files that are applied before the controllers start: the garbage
    collector would discover later ones only after 30 s. Missing programs are built first, which
    takes minutes the first time.
    """

    kubeconfig: Path
    """The kubeconfig of an administrator (group system:masters)."""
    audit_log: Path
    url: str
    authority: Path
    """The certificate that verifies `url`."""
    kubectl: Path

    def __init__(
        self,
        *,
        controller_manager: bool = False,
        crds: Sequence[Path] = (),
        features: Sequence[str] = (),
        apis: Sequence[str] = (),
    ) -> None:
        """features: alpha ones to enable. apis: `group/version` of alpha APIs to serve."""
        self._features, self._apis = tuple(features), tuple(apis)
        self._crds = crds
        self._has_controller_manager = controller_manager
        self._folder: Path | None = None
        self._processes: list[processes.Process] = []

    def __enter__(self) -> "ControlPlane":
        gotools.build(("etcd", "kubernetes"))
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start()
                return self
            except ControlPlaneError:
                # Another process can take a free port before etcd does. Try other ports.
                self.close()
                if attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                self.close()
                raise
        raise AssertionError("unreachable")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and remove the folder; idempotent."""
        # no state is kept, so a graceful stop is not necessary
        processes.kill(self._processes)
        self._processes = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="finetune-control-plane-"))
        apiserver_port, etcd_port, peer_port, manager_port, scheduler_port = free_ports(5)
        credentials = Credentials(self._folder, f"https://{LOOPBACK}:{apiserver_port}")
        credentials.create([])
        settings = ControlSettings(
            folder=self._folder,
            credentials=credentials,
            address=LOOPBACK,
            apiserver_port=apiserver_port,
            etcd_port=etcd_port,
            etcd_peer_port=peer_port,
            controller_manager_port=manager_port,
            scheduler_port=scheduler_port,
            service_network="10.214.0.0/24",
            binary=gotools.binary,
            has_nodes=False,
            has_controller_manager=self._has_controller_manager,
            features=self._features,
            apis=self._apis,
        )
        components.write_control_files(settings)
        self.kubeconfig = credentials.kubeconfig("admin")
        self.audit_log = settings.audit_log
        self.url = credentials.apiserver_url
        self.authority = credentials.authority.certificate
        self.kubectl = gotools.binary("kubectl")
        self._start_and_wait(components.etcd(settings))
        self._start_and_wait(components.apiserver(settings))
        self._wait_for_object(credentials, "/api/v1/namespaces/default")
        self._apply_crds()
        if self._has_controller_manager:
            self._start_and_wait(components.controller_manager(settings))
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._wait_for_object(credentials, account)

    def _apply_crds(self) -> None:
        kubectl = [str(self.kubectl), "--kubeconfig", str(self.kubeconfig)]
        for path in self._crds:
            subprocess.run([*kubectl, "apply", "-f", str(path)], check=True, capture_output=True)
        if self._crds:
            subprocess.run(
                [*kubectl, "wait", "--for=condition=Established", "crd", "--all"],
                check=True,
                capture_output=True,
            )

    def _start_and_wait(self, component: Component) -> None:
        assert self._folder is not None
        log = self._folder / f"{component.name}.log"
        process = processes.start(
            component.name, component.command, log, component.environment, ends_with_us=True
        )
        self._processes.append(process)
        deadline = time.monotonic() + component.ready_seconds
        while not component.probe.is_healthy():
            if not process.is_running() or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise ControlPlaneError(f"{component.name} does not start:\n{tail}")
            time.sleep(0.05)

    def _wait_for_object(self, credentials: Credentials, path: str) -> None:
        """Wait for a default object, which is created just after its component is ready."""
        probe = HttpProbe(f"{self.url}{path}", self.authority, credentials.pair("admin"))
        if not wait_until(probe.is_healthy, 30):
            raise ControlPlaneError(f"{path} was not created")


def free_ports(count: int) -> list[int]:
    """Different ports that are free at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
