"""The content of containerd: the sandbox image, old containers, and stored images.

Images are kept from one instance to the next; containers are not.
"""

import shutil
import signal
import subprocess
from pathlib import Path

from devcluster import cgroups, gotools, images, instance, leftovers, paths, processes
from devcluster.components import Component
from devcluster.node import NodeSettings
from devcluster.probes import wait_until

PAUSE_ARCHIVE = "pause.tar"
CTR_FLAGS = ("--namespace", "k8s.io", "--connect-timeout", "5s")


class ContainerError(Exception):
    """containerd cannot be prepared or cleaned; the message has the cause."""


def write_pause_image() -> None:
    archive = paths.STATE / PAUSE_ARCHIVE
    images.write_image(images.PAUSE_IMAGE, gotools.binary("pause"), archive)


def prepare(settings: NodeSettings, containerd: Component) -> None:
    """Import the sandbox image; after a killed instance, remove its containers first."""
    if _listed(settings):
        forget(settings)
        # containerd has read them at its start and would report them to the kubelet
        processes.stop([instance.running()["containerd"]])
        instance.start(containerd)
        wait_until(containerd.probe.is_healthy, containerd.ready_seconds)
    _import(settings, paths.STATE / PAUSE_ARCHIVE)


def provide_image(settings: NodeSettings, name: str, program: Path) -> None:
    """Build and import an image with one program, unless the image exists."""
    if name in _ctr(settings, "images", "list", "--quiet").stdout.split():
        return
    archive = paths.STATE / "program.tar"
    images.write_image(name, program, archive)
    try:
        _import(settings, archive)
    finally:
        archive.unlink()


def forget(settings: NodeSettings) -> None:
    """Kill every container and remove it with its snapshot from containerd.

    Errors are ignored, because the next start repeats this.
    """
    names = _listed(settings)
    for folder in cgroups.own_folders():
        for pid in cgroups.processes(folder):
            process = processes.identify("container", pid)
            if process is not None:
                process.send(signal.SIGKILL)
    wait_until(lambda: not any(map(cgroups.processes, cgroups.own_folders())), timeout=5)
    if names:
        _ctr(settings, "containers", "delete", *names)
    table = _ctr(settings, "sandboxes", "list").stdout.splitlines()[1:]
    if table:
        sandboxes = [line.split()[0] for line in table]
        _ctr(settings, "sandboxes", "remove", "--force", *sandboxes)


def remove_images() -> None:
    """Remove the images and the content of the registry."""
    for folder in (paths.containerd_root(), paths.registry_root()):
        mounted = leftovers.own_mounts(leftovers.MOUNTS.read_text(), [folder])
        if mounted:
            raise ContainerError(f"Cannot remove {folder}: it has mounts at {', '.join(mounted)}.")
        shutil.rmtree(folder, ignore_errors=True)


def _import(settings: NodeSettings, archive: Path) -> None:
    imported = _ctr(settings, "images", "import", str(archive))
    if imported.returncode != 0:
        raise ContainerError(f"containerd rejected {archive}: {imported.stderr.strip()}")


def _listed(settings: NodeSettings) -> list[str]:
    return _ctr(settings, "containers", "list", "--quiet").stdout.split()


def _ctr(settings: NodeSettings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    program = gotools.binary("ctr")
    command = [str(program), "--address", str(settings.containerd_socket), *CTR_FLAGS, *arguments]
    if not program.exists():
        # the checkout has changed to other versions since the start
        return subprocess.CompletedProcess(command, 127, "", "ctr is not built")
    return subprocess.run(command, capture_output=True, text=True, check=False)
