"""Kueue, which queues Jobs by quota, with its own manifests.

The manifests are `config/default` of the Go module from which the program is built, with a patch
for the image and this small node. `up` does not install Kueue, because every Job and pod of the
cluster then passes through its webhooks.
"""

import json
import os
import subprocess
import time

from devcluster import cluster, containers, gotools, instance, paths
from devcluster.probes import wait_until

NAMESPACE = "kueue-system"
DEPLOYMENT = "deployment/kueue-controller-manager"
VISIBILITY = "apiservice/v1beta1.visibility.kueue.x-k8s.io"
STATED_IMAGE = "us-central1-docker.pkg.dev/k8s-staging-images/kueue/kueue"
READY_SECONDS = 120
REMOVE_SECONDS = 60
# The controller removes its finalizer from these only while no Job uses them.
QUEUES = ("localqueues", "clusterqueues", "cohorts", "resourceflavors")
# A dry run passes through the mutating webhook and has no effect.
PROBE_OBJECT = {
    "apiVersion": "kueue.x-k8s.io/v1beta1",
    "kind": "ResourceFlavor",
    "metadata": {"name": "does-kueue-answer"},
}


class KueueError(Exception):
    """Kueue does not start or cannot be removed; the message comes from kubectl."""


def image() -> str:
    """The image name, which contains the build, so that each build has its own image."""
    build = gotools.binary("kueue").parent.name
    return f"localhost/{paths.NAME}/kueue:{build.removeprefix('kueue-')}"


def kustomization(image_name: str, manifests: str) -> str:
    """The kustomization; manifests: relative path to the config/default of Kueue."""
    name, tag = image_name.rsplit(":", 1)
    container = "/spec/template/spec/containers/0"
    patches = [
        {"op": "replace", "path": f"{container}/command", "value": ["/kueue"]},
        {"op": "replace", "path": f"{container}/imagePullPolicy", "value": "Never"},
        # the node has few cores, and trainings need them
        {"op": "remove", "path": f"{container}/resources"},
        {"op": "replace", "path": f"{container}/readinessProbe/initialDelaySeconds", "value": 1},
        {"op": "replace", "path": f"{container}/readinessProbe/periodSeconds", "value": 1},
    ]
    overlay = {
        "resources": [manifests],
        "images": [{"name": STATED_IMAGE, "newName": name, "newTag": tag}],
        "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(patches)}],
    }
    return json.dumps(overlay, indent=1)


def install() -> None:
    """Build Kueue if necessary, deploy it, and wait until it responds; idempotent."""
    started = time.monotonic()
    gotools.build(["kueue"])
    cluster.up()
    containers.provide_image(instance.node_settings(), image(), gotools.binary("kueue"))
    _kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_manifests())
    patience = f"--timeout={READY_SECONDS}s"
    _kubectl("rollout", "status", DEPLOYMENT, "-n", NAMESPACE, patience)
    _kubectl("wait", "--for=condition=Available", VISIBILITY, patience)
    if not wait_until(_is_responding, READY_SECONDS):
        raise KueueError(
            f"The webhooks of Kueue do not respond. See: kubectl logs -n {NAMESPACE} {DEPLOYMENT}"
        )
    print(f"Kueue is ready after {time.monotonic() - started:.0f} s.")


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
    _kubectl("delete", "--ignore-not-found", "-f", "-", stdin=_manifests())
    print("Kueue is removed.")


def _manifests() -> str:
    folder = paths.STATE / "kueue"
    folder.mkdir(exist_ok=True)
    manifests = gotools.binary("kueue").parent / "config" / "default"
    text = kustomization(image(), os.path.relpath(manifests, folder))
    (folder / "kustomization.yaml").write_text(text)
    return _kubectl("kustomize", str(folder))


def _is_responding() -> bool:
    try:
        _kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(PROBE_OBJECT))
    except KueueError:
        return False
    return True


def _kubectl(*arguments: str, stdin: str = "") -> str:
    command = [str(gotools.binary("kubectl")), f"--kubeconfig={paths.kubeconfig()}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KueueError(f"kubectl {arguments[0]}: {done.stderr.strip()[-1000:]}")
    return done.stdout
