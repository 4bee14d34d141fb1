"""The commands `up`, `down`, and `status`.

`up` is idempotent: running components stay, and stopped ones are started again. If etcd or the
API server has stopped, `up` removes everything and creates a new cluster.
"""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devcluster import (
    cgroups,
    components,
    containers,
    gotools,
    instance,
    leftovers,
    network,
    node,
    packages,
    paths,
    preflight,
    processes,
    stores,
    sysctls,
)
from devcluster.components import Component
from devcluster.probes import HttpProbe, wait_until

BOOTSTRAP = Path(__file__).parent / "bootstrap.yaml"
NODE_READY_SECONDS = 90.0
# They keep images for the next instance and get time to stop; the state of the others is deleted.
KEEPERS = ("containerd", "registry")


class ClusterError(Exception):
    """A component does not start; the message ends with its last log lines."""


def all_components() -> list[Component]:
    """Every component of the running instance, in start order."""
    control = instance.control_settings()
    here = instance.node_settings()
    store = instance.store_settings(instance.read_secrets())
    return [
        components.etcd(control),
        node.containerd(here),
        stores.registry(store),
        stores.s3(store),
        components.apiserver(control),
        components.controller_manager(control),
        components.scheduler(control),
        node.kube_proxy(here),
        node.kubelet(here),
        node.coredns(here),
    ]


def is_running() -> bool:
    if not instance.record_file().exists():
        return False
    alive = instance.running()
    return all(component.name in alive for component in all_components())


def up() -> None:
    """Start the cluster or its missing components, and wait until a pod can run."""
    started = time.monotonic()
    packages.extend_path()
    if is_running() and _is_node_ready():
        print("The cluster is already running.")
        return
    preflight.check()
    with _lock():
        gotools.build()
        packages.install(packages.missing_packages())
        alive = instance.running()
        if not {"etcd", "kube-apiserver"} <= alive.keys() or not network.exists():
            _create()
            alive = {}
        _start_all(alive)
    print(f"The cluster is up after {time.monotonic() - started:.0f} s.")


def down(*, with_images: bool = False) -> None:
    """Stop everything and remove its state; with_images: remove the images, too."""
    packages.extend_path()
    if os.geteuid() != 0 and paths.STATE.exists():
        raise ClusterError("The cluster runs as root. Run the command with sudo.")
    with _lock():
        alive = instance.running()
        was_running = bool(alive)
        keepers = {name: alive.pop(name) for name in KEEPERS if name in alive}
        processes.kill(alive.values())
        if "containerd" in keepers:
            containers.forget(instance.node_settings())
        processes.stop(keepers.values())
        removed = leftovers.remove()
        if with_images:
            containers.remove_images()
    if was_running or removed:
        print("The cluster is down.")
    else:
        print("No cluster was running.")


def status() -> bool:
    """Print a table of the components; returns whether all of them are healthy."""
    if not instance.record_file().exists():
        print("The cluster is not running. Start it: python3 -m devcluster up")
        return False
    alive = instance.running()
    good = True
    print(f"{'COMPONENT':<26}{'PID':>8}  HEALTH")
    for component in all_components():
        process = alive.get(component.name)
        healthy = process is not None and component.probe.is_healthy()
        good = good and healthy
        word = "ok" if healthy else "no response" if process else "not running"
        print(f"{component.name:<26}{process.pid if process else '-':>8}  {word}")
    ready = _is_node_ready()
    print(f"{'node ' + paths.NODE_NAME:<26}{'-':>8}  {'ready' if ready else 'not ready'}")
    return good and ready


def _create() -> None:
    removed = leftovers.remove()
    if removed:
        print(f"Removed the remains of an earlier instance: {_summary(removed)}.", flush=True)
    preflight.check_ports()
    paths.STATE.mkdir(mode=0o700, parents=True)
    leftovers.record_folders()
    sysctls.save(paths.STATE / "sysctls.json")
    sysctls.forward_packets()
    network.create()
    cgroups.create()
    credentials = instance.credentials()
    credentials.create([paths.NODE_ADDRESS, paths.APISERVER_SERVICE_ADDRESS])
    credentials.create_node(paths.NODE_NAME, paths.NODE_ADDRESS)
    paths.kubeconfig().touch(mode=0o600)
    paths.kubeconfig().write_text(credentials.kubeconfig("admin").read_text())
    instance.create_secrets()
    containers.write_pause_image()


def _start_all(alive: dict[str, processes.Process]) -> None:
    control, here = instance.control_settings(), instance.node_settings()
    store = instance.store_settings(instance.read_secrets())
    components.write_control_files(control)
    node.write_files(here)
    stores.write_files(store)
    by_name = {component.name: component for component in all_components()}
    # the components of a stage start in parallel, and each stage needs the one before
    for stage in (
        ("etcd", "containerd", "registry", "s3"),
        ("kube-apiserver",),
        ("kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "coredns"),
    ):
        _start_stage([by_name[name] for name in stage if name not in alive])
        if "containerd" in stage and "containerd" not in alive:
            containers.prepare(here, by_name["containerd"])
        if "s3" in stage:
            stores.create_user_and_bucket(store)
        if "kube-apiserver" in stage:
            _apply_bootstrap()
    started = time.monotonic()
    if not wait_until(_is_node_ready, NODE_READY_SECONDS):
        raise ClusterError(f"The node is not ready. See {paths.log_file('kubelet')}.")
    print(f"  {'node ready':<26}{time.monotonic() - started:5.1f} s", flush=True)


def _start_stage(stage: Sequence[Component]) -> None:
    started = time.monotonic()
    waiting = {component.name: (component, instance.start(component)) for component in stage}
    while waiting:
        for name, (component, process) in list(waiting.items()):
            elapsed = time.monotonic() - started
            if component.probe.is_healthy():
                print(f"  {name:<26}{elapsed:5.1f} s", flush=True)
                del waiting[name]
            elif not process.is_running() or elapsed > component.ready_seconds:
                state = "has stopped" if not process.is_running() else "does not respond"
                raise ClusterError(f"{name} {state}:\n{last_lines(paths.log_file(name))}")
        time.sleep(0.05)


def last_lines(log: Path, count: int = 15) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        lines = []
    return "\n".join([*lines, f"(full log: {log})"])


def _apply_bootstrap() -> None:
    command = [str(gotools.binary("kubectl")), f"--kubeconfig={paths.kubeconfig()}", "apply"]
    # The API server creates its default roles just after it is ready, and these roles refer to
    # them.
    result = subprocess.run(
        [*command, "--server-side", "-f", str(BOOTSTRAP)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise ClusterError(f"The API server rejected {BOOTSTRAP.name}: {result.stderr.strip()}")


def _is_node_ready() -> bool:
    """Whether a pod can run: the node is ready, and the default ServiceAccount exists."""
    node_object = _read_object(f"/api/v1/nodes/{paths.NODE_NAME}")
    account = _read_object("/api/v1/namespaces/default/serviceaccounts/default")
    conditions = (node_object or {}).get("status", {}).get("conditions", [])
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and account is not None


def _read_object(path: str) -> dict[str, dict[str, list[dict[str, str]]]] | None:
    credentials = instance.credentials()
    probe = HttpProbe(
        f"{credentials.apiserver_url}{path}",
        credentials.authority.certificate,
        credentials.pair("admin"),
    )
    status, body = probe.fetch()
    if status != 200:
        return None
    found: dict[str, dict[str, list[dict[str, str]]]] = json.loads(body)
    return found


def _summary(removed: Sequence[str]) -> str:
    kinds: dict[str, int] = {}
    for entry in removed:
        kind = entry.split()[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    plural = {"process": "processes"}
    return ", ".join(
        f"{count} {kind if count == 1 else plural.get(kind, kind + 's')}"
        for kind, count in kinds.items()
    )


@contextmanager
def _lock() -> Iterator[None]:
    """Allow one `up` or `down` at a time."""
    paths.cache_folder().mkdir(parents=True, exist_ok=True)
    with (paths.cache_folder() / "cluster.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another devcluster command is running. Waiting for it.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
