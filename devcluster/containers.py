"""containerd's content: the sandbox image it must have, the containers it must forget, the images
that stay.

The rule of this room: images are kept from one instance to the next; containers never are.
"""

import shutil
import signal
import subprocess

from devcluster import cgroups, gotools, images, instance, leftovers, paths, processes
from devcluster.components import Component
from devcluster.node import NodeSettings
from devcluster.probes import wait_until

PAUSE_ARCHIVE = "pause.tar"


class ContainerError(Exception):
    """containerd refused; the message is ctr's own."""


def write_pause_image() -> None:
    archive = paths.STATE / PAUSE_ARCHIVE
    images.write_image(images.PAUSE_IMAGE, gotools.binary("pause"), archive)


def prepare(settings: NodeSettings, containerd: Component) -> None:
    """Imports the sandbox image; and after a killed instance, lets containerd start without its
    containers.
    """
    if _listed(settings):
        forget(settings)
        # It has read them already when it started, and would report them to the kubelet.
        processes.stop([instance.running()["containerd"]])
        instance.start(containerd)
        wait_until(containerd.probe.is_healthy, containerd.ready_seconds)
    _ctr(settings, "images", "import", str(paths.STATE / PAUSE_ARCHIVE))


def forget(settings: NodeSettings) -> None:
    """Ends every container and removes it with its snapshot from containerd's records."""
    if not gotools.binary("ctr").exists():
        # The checkout moved to other versions while the cluster ran; the next start forgets them.
        return
    names = _listed(settings)
    for folder in cgroups.own_folders():
        for pid in cgroups.processes(folder):
            process = processes.identify("container", pid)
            if process is not None:
                process.send(signal.SIGKILL)
    wait_until(lambda: not any(map(cgroups.processes, cgroups.own_folders())), timeout=5)
    if names:
        _ctr(settings, "containers", "delete", *names, check=False)
    table = _ctr(settings, "sandboxes", "list").splitlines()[1:]
    if table:
        sandboxes = [line.split()[0] for line in table]
        _ctr(settings, "sandboxes", "remove", "--force", *sandboxes, check=False)


def remove_images() -> None:
    """Removes the image store and the registry's content."""
    for folder in (paths.containerd_root(), paths.registry_root()):
        mounted = leftovers.own_mounts(leftovers.MOUNTS.read_text(), [folder])
        if mounted:
            raise ContainerError(f"{folder} is still mounted at {', '.join(mounted)}")
        shutil.rmtree(folder, ignore_errors=True)


def _listed(settings: NodeSettings) -> list[str]:
    return _ctr(settings, "containers", "list", "--quiet").split()


def _ctr(settings: NodeSettings, *arguments: str, check: bool = True) -> str:
    command = [str(gotools.binary("ctr")), "--address", str(settings.containerd_socket)]
    result = subprocess.run(
        [*command, "--namespace", "k8s.io", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if check and result.returncode != 0:
        raise ContainerError(f"ctr {' '.join(arguments[:2])}: {result.stderr.strip()}")
    return result.stdout
