"""A control plane without rate limits, with kwok as the kubelets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.machine import ROOT
from devcluster import gotools, processes
from devcluster.controlplane import ControlPlane, free_ports
from devcluster.credentials import Credentials
from devcluster.probes import HttpProbe, wait_until
from finetune_api import names
from tests.support.kubectl import Kubectl
from tests.support.objects import TRAINED_ROOT, prepared, trained

STAGES = Path(__file__).with_name("stages.yaml")
CRDS = ("finetunes", "models")
NODES = 10
NAMESPACE = "bench"
READY_SECONDS = 60
UNLIMITED = ("--kube-api-qps=5000", "--kube-api-burst=10000")  # as in kwok's own clusters
MODEL = trained().trained.fine_tuned_model  # type: ignore[union-attr]


class KwokControlPlane(ControlPlane):
    """etcd, API server, controller manager, scheduler, and kwok, limited only by the machine.

    The base class cannot set limits of the controller manager, so this class starts it.
    """

    def __init__(self) -> None:
        super().__init__(controller_manager=False)

    def _start(self) -> None:
        super()._start()
        assert self._folder is not None
        config = f"--kubeconfig={self.kubeconfig}"
        ports = dict(zip(("manager", "scheduler", "kwok"), free_ports(3), strict=True))
        pair = Credentials(self._folder, self.url).pair("loopback")
        secured = ("--leader-elect=false", *UNLIMITED)
        secured += (f"--tls-cert-file={pair.certificate}", f"--tls-private-key-file={pair.key}")
        self._spawn(
            *("kube-controller-manager", config, *secured),
            f"--secure-port={ports['manager']}",
            # No kubelet sends heartbeats for kwok's nodes.
            "--controllers=*,-node-lifecycle-controller",
            url=f"https://127.0.0.1:{ports['manager']}/healthz",
        )
        self._spawn(
            *("kube-scheduler", config, *secured),
            f"--secure-port={ports['scheduler']}",
            url=f"https://127.0.0.1:{ports['scheduler']}/healthz",
        )
        stages = self._folder / "stages.yaml"
        stages.write_text(stages_text())
        self._spawn(
            *("kwok", config, f"--config={stages}", "--manage-all-nodes"),
            *("--node-lease-duration-seconds=0", f"--server-address=127.0.0.1:{ports['kwok']}"),
            url=f"http://127.0.0.1:{ports['kwok']}/healthz",
        )

    def _spawn(self, program: str, *arguments: str, url: str) -> None:
        assert self._folder is not None
        log = self._folder / f"{program}.log"
        command = [str(gotools.binary(program)), *arguments]
        self._processes.append(processes.start(program, command, log, ends_with_us=True))
        if not wait_until(HttpProbe(url, self.authority).is_healthy, READY_SECONDS):
            raise RuntimeError(f"{program} did not become healthy:\n{log.read_text()[-2000:]}")

    def pid(self, program: str) -> int:
        return next(process.pid for process in self._processes if process.name == program)


def stages_text() -> str:
    """Return the stages with the termination messages of a real training."""
    message = trained().to_termination_message().replace("%", "%%")
    text = STAGES.read_text()
    text = text.replace("PREPARED`", prepared().to_termination_message() + "`")
    message = message.replace(MODEL, f"{MODEL}-%[1]s")
    message = message.replace(TRAINED_ROOT, "s3://bucket/out/%[2]s/%[1]s-%[3]s")
    return text.replace("TRAINED`", message + "`")


@contextlib.contextmanager
def started() -> Iterator[tuple[KwokControlPlane, Kubectl]]:
    """Yield a control plane with the CRDs, nodes, and a namespace, and remove it at the end."""
    gotools.build(("etcd", "kubernetes", "helm", "kwok"))
    plane = KwokControlPlane()
    with plane:
        admin = Kubectl(str(plane.kubectl), str(plane.kubeconfig))
        for name in CRDS:
            admin.apply_file(ROOT / "crds" / f"{name}.yaml")
        crds = [f"crd/{name}.{names.GROUP}" for name in CRDS]
        admin("wait", "--for=condition=Established", *crds)
        admin.apply(*(_node(f"kwok-{number}") for number in range(NODES)))
        admin(
            "taint", "nodes", "--all", "node.kubernetes.io/not-ready-"
        )  # no controller removes it
        admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield plane, admin.within(NAMESPACE)


def _node(name: str) -> dict[str, object]:
    amounts = {"cpu": "100k", "memory": "1Pi", "ephemeral-storage": "1Pi", "pods": "100k"}
    status = {"capacity": amounts, "allocatable": amounts}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
