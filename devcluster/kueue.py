"""Kueue, which queues Jobs by quota, with its own manifests.

The manifests are `config/default` of the Go module from which the program is built, with a patch
for the image and this small node. `up` does not install Kueue, because every Job and pod of the
cluster then passes through its webhooks.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import cluster, containers, gotools, instance, paths
from devcluster.probes import wait_until

NAMESPACE = "kueue-system"
DEPLOYMENT = "deployment/kueue-controller-manager"
CERTIFICATES = "secret/kueue-webhook-server-cert"
READY_SECONDS = 120
REMOVE_SECONDS = 60
# The controller removes its finalizer from these only while no Job uses them.
QUEUES = ("localqueues", "clusterqueues", "cohorts", "resourceflavors")


@dataclass(frozen=True)
class Variant:
    """A version of Kueue. served: its API versions, the newest first."""

    tool: str
    served: tuple[str, ...]

    @property
    def binary(self) -> Path:
        return gotools.binary(self.tool)

    @property
    def visibility(self) -> tuple[str, ...]:
        """The names of its APIServices."""
        return tuple(f"{version}.visibility.kueue.x-k8s.io" for version in self.served)


# The oldest one that still has users; the newest one that the Go module proxy serves; and the
# latter without v1beta1, as in 0.20, which that proxy does not serve.
VARIANTS = {
    "0.14": Variant("kueue-0.14", ("v1beta1",)),
    "0.19": Variant("kueue", ("v1beta2", "v1beta1")),
    "0.19-v1beta2-only": Variant("kueue", ("v1beta2",)),
}
USUAL = "0.19"


class KueueError(Exception):
    """Kueue does not start or cannot be removed; the message comes from kubectl."""


def image(variant: Variant) -> str:
    """The image name, which contains the build, so that each build has its own image."""
    build = variant.binary.parent.name
    return f"localhost/{paths.NAME}/kueue:{build.removeprefix(f'{variant.tool}-')}"


def kustomization(variant: Variant, manifests: str, patches: Sequence[Any] = ()) -> str:
    """The kustomization; manifests: relative path to the config/default of Kueue."""
    overlay = {
        "resources": [manifests],
        "patches": [*_without_old_version(variant), *patches],
    }
    return json.dumps(overlay, indent=1)


def _without_old_version(variant: Variant) -> list[Any]:
    """Patches that end the serving of v1beta1, of programs that serve v1beta2 as well."""
    if "v1beta1" in variant.served:
        return []
    crd = [
        {"op": "test", "path": "/spec/versions/0/name", "value": "v1beta1"},
        {"op": "replace", "path": "/spec/versions/0/served", "value": False},
    ]
    service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.visibility.kueue.x-k8s.io"},
        "$patch": "delete",
    }
    return [
        {"target": {"kind": "CustomResourceDefinition"}, "patch": json.dumps(crd)},
        {"patch": json.dumps(service)},
    ]


def for_this_node(image_name: str) -> list[Any]:
    """The patches for the image and the small node."""
    container = "/spec/template/spec/containers/0"
    changes = [
        {"op": "replace", "path": f"{container}/command", "value": ["/kueue"]},
        {"op": "replace", "path": f"{container}/image", "value": image_name},
        {"op": "replace", "path": f"{container}/imagePullPolicy", "value": "Never"},
        # the node has few cores, and trainings need them
        {"op": "remove", "path": f"{container}/resources"},
        {"op": "replace", "path": f"{container}/readinessProbe/initialDelaySeconds", "value": 1},
        {"op": "replace", "path": f"{container}/readinessProbe/periodSeconds", "value": 1},
    ]
    return [{"target": {"kind": "Deployment"}, "patch": json.dumps(changes)}]


def render(variant: Variant, folder: Path, patches: Sequence[Any] = ()) -> str:
    """The manifests as YAML. folder: for the kustomization, below the home of the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    manifests = variant.binary.parent / "config" / "default"
    text = kustomization(variant, os.path.relpath(manifests, folder.resolve()), patches)
    (folder / "kustomization.yaml").write_text(text)
    return _run(str(gotools.binary("kubectl")), "kustomize", str(folder))


def install(name: str = USUAL) -> None:
    """Build Kueue if necessary, deploy it, and wait until it responds; idempotent.

    Another variant is removed first, because it may have stored what this one does not serve.
    """
    started = time.monotonic()
    variant = VARIANTS[name]
    gotools.build([variant.tool])
    cluster.up()
    if _installed() not in (None, name):
        remove()
    containers.provide_image(instance.node_settings(), image(variant), variant.binary)
    _note().parent.mkdir(exist_ok=True)
    _note().write_text(name)
    _kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_manifests(variant))
    patience = f"--timeout={READY_SECONDS}s"
    _mount_certificates(patience)
    _kubectl("rollout", "status", DEPLOYMENT, "-n", NAMESPACE, patience)
    for service in variant.visibility:
        _kubectl("wait", "--for=condition=Available", f"apiservice/{service}", patience)
    if not wait_until(lambda: _is_responding(variant), READY_SECONDS):
        raise KueueError(
            f"The webhooks of Kueue do not respond. See: kubectl logs -n {NAMESPACE} {DEPLOYMENT}"
        )
    print(f"Kueue {name} is ready after {time.monotonic() - started:.0f} s.")


def remove() -> None:
    """Remove Kueue and its queues; fails while Jobs use them."""
    if not cluster.is_running():
        print("The cluster is not running.")
        return
    if not _kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"):
        print("Kueue is not installed.")
        return
    for kind in QUEUES:
        _kubectl(
            *("delete", f"{kind}.kueue.x-k8s.io", "--all", "--all-namespaces"),
            f"--timeout={REMOVE_SECONDS}s",
        )
    variant = VARIANTS[_installed() or USUAL]
    _kubectl("delete", "--ignore-not-found", "-f", "-", stdin=_manifests(variant))
    _note().unlink(missing_ok=True)
    print("Kueue is removed.")


def _note() -> Path:
    """The file with the name of the installed variant."""
    return paths.STATE / "kueue" / "variant"


def _installed() -> str | None:
    note = _note()
    return note.read_text() if note.exists() else None


def _manifests(variant: Variant) -> str:
    return render(variant, paths.STATE / "kueue", for_this_node(image(variant)))


def _mount_certificates(patience: str) -> None:
    """Let the kubelet mount the certificates that the pod has made, instead of minutes later.

    The pod looks for them in its volume at times that double, up to four minutes. The kubelet
    refreshes the volume when the pod changes, or else once in more than a minute.
    """
    _kubectl("wait", "-n", NAMESPACE, "--for=jsonpath={.data.ca\\.crt}", CERTIFICATES, patience)
    pods = ("pods", "-n", NAMESPACE, "-l", "control-plane=controller-manager")
    _kubectl("annotate", *pods, "--overwrite", f"{paths.NAME}/certificates=made")


def _is_responding(variant: Variant) -> bool:
    """A dry run passes through the mutating webhook and has no effect."""
    probe = {
        "apiVersion": f"kueue.x-k8s.io/{variant.served[0]}",
        "kind": "ResourceFlavor",
        "metadata": {"name": "does-kueue-answer"},
    }
    try:
        _kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(probe))
    except KueueError:
        return False
    return True


def _kubectl(*arguments: str, stdin: str = "") -> str:
    kubectl = str(gotools.binary("kubectl"))
    return _run(kubectl, f"--kubeconfig={paths.kubeconfig()}", *arguments, stdin=stdin)


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shown = next(part for part in command[1:] if not part.startswith("-"))
        raise KueueError(f"kubectl {shown}: {done.stderr.strip()[-1000:]}")
    return done.stdout
