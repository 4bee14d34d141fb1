"""Fixtures: a real kube-apiserver and etcd, the chart's Role, and the operator process.

There is no kubelet: the tests write the status of pods and Jobs instead.
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import gotools
from devcluster.controlplane import ControlPlane
from finetune_api import names
from tests.support.audit import BY_OPTION, rights_of, rights_used
from tests.support.kubectl import Kubectl, until
from tests.support.objects import a_settings, addressed
from tests.support.proxy import FaultyProxy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "finetune-operator"
START_SECONDS = 90  # of an operator, on a machine that does much else
_numbers = itertools.count(1)
GRANTED: set[str] = set()  # rights of the chart's Role
AUDITED: set[str] = set()  # users of operators that have it, and nothing else


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of kubectl and helm."""
    return Path(gotools.cli_folder())


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """An API server for all tests of this process; no operator asks it for more than it may."""
    with ControlPlane() as plane:
        yield plane
        used = rights_used(Path(plane.audit_log), *AUDITED)
        assert used <= GRANTED | BY_OPTION, sorted(used - GRANTED - BY_OPTION)


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane, tools: Path) -> Kubectl:
    kubectl = Kubectl(str(tools / "kubectl"), str(control_plane.kubeconfig))
    for name in ("finetunes.yaml", "models.yaml"):
        kubectl.apply_file(ROOT / "crds" / name)
    kubectl(
        "wait",
        "--for=condition=Established",
        "crd/finetunes.finetune.dev",
        "crd/models.finetune.dev",
    )
    return kubectl


@pytest.fixture
def team(admin: Kubectl) -> Kubectl:
    """A new namespace for the test."""
    name = f"team-{next(_numbers):03}"  # one length: terminals are compared
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return admin.within(name)


class Operator:
    """The operator process with the chart's service account and Role."""

    def __init__(
        self,
        team: Kubectl,
        helm: Path,
        folder: Path,
        server: str = "",
        first: str = "",
        **settings: Any,
    ) -> None:
        """server: replaces the address of the API server. settings: added to the usual ones.

        first: Python code that the process runs before it imports the operator.
        """
        self.team = team
        self.folder = folder
        self.first = first
        folder.mkdir(exist_ok=True)
        self.user = f"system:serviceaccount:{team.namespace}:finetune-operator"
        self.process: subprocess.Popen[bytes] | None = None
        self.python_path: str | None = None  # of another version's sources
        self.port = _free_port()
        self.metrics_port = _free_port()
        self.serves = "serving" in settings
        self._install_role(helm)
        self._write_settings(settings)
        self._write_kubeconfig(server)

    def _install_role(self, helm: Path) -> None:
        rendered = subprocess.run(
            [
                str(helm),
                "template",
                "finetune-operator",
                str(CHART),
                "-n",
                self.team.namespace,
                "--set",
                "crds.install=false",
                *(["--set", "serving.enabled=true"] if self.serves else []),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        wanted = {"Role", "RoleBinding", "ServiceAccount"}
        objects = [item for item in yaml.safe_load_all(rendered) if item and item["kind"] in wanted]
        assert {item["kind"] for item in objects} == wanted
        GRANTED.update(*(rights_of(item) for item in objects if item["kind"] == "Role"))
        self.team.apply(*objects)

    def _write_settings(self, changes: dict[str, Any]) -> None:
        settings = a_settings(namespace=self.team.namespace, pollSeconds=0.5, **changes)
        # Without the defaults, which an operator of the previous version does not know.
        given = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(given))

    def allow(self, *rules: dict[str, Any]) -> None:
        """Grant permissions in addition to the chart's."""
        AUDITED.discard(self.user)
        name = "finetune-operator-more"
        group = "rbac.authorization.k8s.io"
        account = {"kind": "ServiceAccount", "name": "finetune-operator"}
        account["namespace"] = self.team.namespace
        self.team.apply(
            {
                "apiVersion": f"{group}/v1",
                "kind": "Role",
                "metadata": {"name": name},
                "rules": list(rules),
            },
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [account],
            },
        )

    def _write_kubeconfig(self, server: str) -> None:
        config = yaml.safe_load(Path(self.team.kubeconfig).read_text())
        token = self.team("create", "token", "finetune-operator").strip()
        config["users"] = [{"name": "operator", "user": {"token": token}}]
        if server:
            config["clusters"][0]["cluster"] = {"server": server}
        for context in config["contexts"]:
            context["context"]["user"] = "operator"
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(config))

    def start(self) -> None:
        self.log = (self.folder / "operator.log").open("ab")
        entry = ["-m", "finetune_operator"]
        if self.first:
            entry = ["-c", f"{self.first}\nfrom finetune_operator.main import main\nmain()"]
        self.process = subprocess.Popen(
            [
                sys.executable,
                *entry,
                "run",
                "--settings",
                str(self.folder / "settings.yaml"),
                "--probe-port",
                str(self.port),
                "--metrics-port",
                str(self.metrics_port),
            ],
            env={
                **os.environ,
                "KUBECONFIG": str(self.folder / "kubeconfig"),
                **({"PYTHONPATH": self.python_path} if self.python_path else {}),
            },
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        until(self.is_ready, START_SECONDS, self.logs)

    def is_ready(self) -> bool:
        try:
            return self.fetch(self.port, "/readyz") == "ok"
        except OSError:
            return False

    def fetch(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def metrics(self) -> str:
        return self.fetch(self.metrics_port, "/metrics")

    def logs(self) -> str:
        return (self.folder / "operator.log").read_text()[-3000:]

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None


def start_deleter(team: Kubectl, helm: Path, folder: Path) -> Operator:
    """Start an operator that deletes the files of Models."""
    made = Operator(team, helm, folder, deletesModels=True)
    made.allow(
        {"apiGroups": [names.GROUP], "resources": ["models"], "verbs": ["watch", "patch"]},
        {"apiGroups": [names.GROUP], "resources": ["models/status"], "verbs": ["patch"]},
    )
    made.start()
    return made


@pytest.fixture
def operator(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(team, tools / "helm", tmp_path)
    AUDITED.add(made.user)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def killed_operator(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    """An operator that is killed at the end, which takes no time. Its last Events are lost."""
    made = Operator(team, tools / "helm", tmp_path)
    AUDITED.add(made.user)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[FaultyProxy]:
    with FaultyProxy(control_plane.url, control_plane.authority) as made:
        yield made


@pytest.fixture
def proxied(team: Kubectl, tools: Path, tmp_path: Path, proxy: FaultyProxy) -> Iterator[Operator]:
    """An operator that reaches the API server only through the proxy. It is not started yet."""
    made = Operator(team, tools / "helm", tmp_path, proxy.url)
    yield made
    made.stop()


class Kubelet:
    """Replaces the Job controller and the kubelet: creates pods and sets their status."""

    def __init__(self, team: Kubectl) -> None:
        self.team = team
        self._specs: dict[str, dict[str, Any]] = {}  # of the pods that it started

    def job(self, ending: str, seconds: float = 20) -> dict[str, Any]:
        """Wait for the Job whose name has this ending."""
        found: list[dict[str, Any]] = []

        def exists() -> bool:
            found[:] = [
                job for job in self.team.list("jobs") if job["metadata"]["name"].endswith(ending)
            ]
            return bool(found)

        until(exists, seconds, lambda: f"no Job {ending}: {self.team('get', 'finetunes,jobs')}")
        return found[0]

    def start_pods(self, *jobs: dict[str, Any]) -> list[str]:
        """Create the pods of Jobs as the Job controller does."""
        pods = [pod for job in jobs for pod in self._pods(job)]
        self._specs |= {pod["metadata"]["name"]: pod["spec"] for pod in pods}
        self.team.apply(*pods)
        return [str(pod["metadata"]["name"]) for pod in pods]

    def _pods(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        template, meta = job["spec"]["template"], job["metadata"]
        pods = []
        for index in range(job["spec"].get("completions") or 1):
            name = f"{meta['name']}-{index}"
            pods.append(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": name,
                        "labels": {
                            **template["metadata"]["labels"],
                            "batch.kubernetes.io/job-completion-index": str(index),
                        },
                        "annotations": template["metadata"].get("annotations", {}),
                        "ownerReferences": [
                            {
                                "apiVersion": "batch/v1",
                                "kind": "Job",
                                "name": meta["name"],
                                "uid": meta["uid"],
                                "controller": True,
                            }
                        ],
                    },
                    "spec": template["spec"],
                }
            )
        return pods

    def ready(self, *pods: str) -> None:
        self.set_status(dict.fromkeys(pods, READY))

    def end(self, pod: str, code: int, message: str = "") -> None:
        self.set_status({pod: ended(code, message)})

    def set_status(self, statuses: dict[str, dict[str, Any]]) -> None:
        """Set the status of each pod, with one kubectl for all.

        A result in it gets the addresses of the pod's task.
        """
        statuses = {name: self._addressed(name, status) for name, status in statuses.items()}
        if len(statuses) == 1:
            ((name, status),) = statuses.items()
            self.team.patch_status("pod", name, status)
            return
        pods = {pod["metadata"]["name"]: pod for pod in self.team.list("pods")}
        changed = [
            {**pods[name], "status": {**pods[name]["status"], **status}}
            for name, status in statuses.items()
        ]
        written = yaml.safe_dump_all(changed)
        self.team("replace", "--subresource=status", "-f", "-", stdin=written)

    def _addressed(self, pod: str, status: dict[str, Any]) -> dict[str, Any]:
        spec = self._specs.get(pod)
        return status if spec is None else with_addresses(status, spec)


def with_addresses(status: dict[str, Any], pod_spec: dict[str, Any]) -> dict[str, Any]:
    """The status of a pod whose result has the addresses of its task."""
    containers = deepcopy(status.get("containerStatuses", []))
    for container in containers:
        ended = container["state"].get("terminated")
        if ended is not None:
            ended["message"] = addressed(ended.get("message", ""), pod_spec)
    return {**status, "containerStatuses": containers} if containers else status


def ended(code: int, message: str = "") -> dict[str, Any]:
    """The status of a pod whose container ended: well just now, or badly a while ago.

    The Job controller has a moment to end the Job, and nothing waits for another pod's word.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {
        "terminated": {
            "exitCode": code,
            "message": message,
            "startedAt": "2026-11-21T12:00:00Z",
            "finishedAt": "2026-11-21T12:05:00Z" if code else now,
        }
    }
    phase = "Succeeded" if code == 0 else "Failed"
    return {"phase": phase, "containerStatuses": [_container(state)]}


@pytest.fixture
def kubelet(team: Kubectl) -> Kubelet:
    return Kubelet(team)


def _container(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "main",
        "image": "registry/image:1",
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }


READY = {
    "phase": "Running",
    "startTime": "2026-11-21T12:00:00Z",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [_container({"running": {"startedAt": "2026-11-21T12:00:00Z"}})],
}


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@contextlib.contextmanager
def serve_progress(address: str, report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The /progress of rank 0 on its own address. A test may change the report, which is yielded.

    A pod of another test may have the port on all addresses: this waits until the port is free.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(report).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    servers: list[ThreadingHTTPServer] = []

    def is_bound() -> bool:
        with contextlib.suppress(OSError):
            servers.append(ThreadingHTTPServer((address, names.PORT_PROGRESS), Answer))
        return bool(servers)

    until(is_bound, 120)
    threading.Thread(target=servers[0].serve_forever, daemon=True).start()
    yield report
    servers[0].shutdown()
    servers[0].server_close()
