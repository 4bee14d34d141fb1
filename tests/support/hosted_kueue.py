"""The real Kueue as a process next to the control plane of a test, without a node.

It runs as in its pod: with its own manifests, service account, and permissions, in a root folder of
its own, because some of its paths are fixed. Only its addresses differ, and what a kubelet would
do: it writes the certificates of the Secret to the folder. Needs root, for the root folder.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from devcluster import gotools
from devcluster.controlplane import ControlPlane, free_ports
from devcluster.kueue import NAMESPACE, VARIANTS, Variant, render
from devcluster.processes import kill, start
from finetune_api.wire import JsonObject
from tests.support.kubectl import Kubectl, RefusedError, until

ACCOUNT = "var/run/secrets/kubernetes.io/serviceaccount"
WEBHOOK_CERTIFICATES = "tmp/k8s-webhook-server/serving-certs"
START_SECONDS = 180
OLD_VISIBILITY_PORT = 8082  # fixed in 0.14


class HostedKueue:
    """Kueue of one variant. Every Job is managed, also without a queue."""

    def __init__(self, plane: ControlPlane, variant: str, folder: Path) -> None:
        self.variant: Variant = VARIANTS[variant]
        self.folder = folder
        self.root = folder / "root"
        self._plane = plane
        self._admin = Kubectl(str(plane.kubectl), str(plane.kubeconfig))
        ports = free_ports(4)
        self._webhook, self._health, self._metrics, self._visibility = ports
        if "v1beta2" not in self.variant.served:
            self._visibility = OLD_VISIBILITY_PORT

    @contextmanager
    def running(self) -> Iterator["HostedKueue"]:
        gotools.build([self.variant.tool])
        objects = list(
            yaml.load_all(render(self.variant, self.folder / "manifests"), yaml.CSafeLoader)
        )
        self._apply_crds(objects)
        self._make_root(objects)
        command = [
            *("/usr/bin/env", "-i"),
            "KUBERNETES_SERVICE_HOST=127.0.0.1",
            f"KUBERNETES_SERVICE_PORT={self._plane.url.rsplit(':', 1)[1]}",
            *(str(shutil.which("chroot")), str(self.root), "/kueue"),
            *("--config=/controller_manager_config.yaml", "--zap-log-level=2"),
        ]
        process = start("kueue", command, self.folder / "kueue.log", ends_with_us=True)
        try:
            until(self._is_responding, START_SECONDS, self.logs)
            yield self
        finally:
            kill([process])

    def logs(self) -> str:
        return (self.folder / "kueue.log").read_text()[-3000:]

    def served(self) -> str:
        """The newest API version."""
        return self.variant.served[0]

    def end_v1beta1(self) -> None:
        """Stop serving v1beta1, as the upgrade to 0.20 does."""
        patch = json.dumps(
            [
                {"op": "test", "path": "/spec/versions/0/name", "value": "v1beta1"},
                {"op": "replace", "path": "/spec/versions/0/served", "value": False},
            ]
        )
        crds = self._admin("get", "crd", "-o", "name").split()
        for name in [name for name in crds if name.endswith(".kueue.x-k8s.io")]:
            self._admin("patch", name, "--type=json", "-p", patch)
        self._admin("delete", "apiservice", "v1beta1.visibility.kueue.x-k8s.io")

    def _apply_crds(self, objects: list[JsonObject]) -> None:
        for item in objects:
            self._readdress(item)
        crds = [item for item in objects if item["kind"] == "CustomResourceDefinition"]
        namespaces = [item for item in objects if item["kind"] == "Namespace"]
        self.apply(*namespaces, *crds)
        self._admin("wait", "--for=condition=Established", "crd", "--all")
        self.apply(*(item for item in objects if item["kind"] != "Deployment"))

    def apply(self, *objects: JsonObject) -> None:
        """Apply objects of several namespaces."""
        for namespace in {item["metadata"].get("namespace", "default") for item in objects}:
            mine = [
                item
                for item in objects
                if item["metadata"].get("namespace", "default") == namespace
            ]
            kubectl = self._admin.within(namespace)
            text = yaml.dump_all(mine, Dumper=yaml.CSafeDumper)
            kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def _readdress(self, item: JsonObject) -> None:
        """Lead the API server to this process."""
        kind, spec = item["kind"], item.get("spec", {})
        if kind == "Service":
            item["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        elif kind == "APIService":
            spec["service"]["port"] = self._visibility
        elif kind == "CustomResourceDefinition" and "webhook" in spec.get("conversion", {}):
            spec["conversion"]["webhook"]["clientConfig"]["service"]["port"] = self._webhook
        for webhook in item.get("webhooks", []):
            webhook["clientConfig"]["service"]["port"] = self._webhook

    def _make_root(self, objects: list[JsonObject]) -> None:
        for name in ("etc", "visibility", ACCOUNT, WEBHOOK_CERTIFICATES):
            (self.root / name).mkdir(parents=True)
        shutil.copy(self.variant.binary, self.root / "kueue")
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        token = self._admin.within(NAMESPACE)(
            "create", "token", "kueue-controller-manager", "--duration=3h"
        )
        (self.root / ACCOUNT / "token").write_text(token.strip())
        (self.root / ACCOUNT / "namespace").write_text(NAMESPACE)
        shutil.copy(self._plane.authority, self.root / ACCOUNT / "ca.crt")
        (config,) = [
            yaml.safe_load(item["data"]["controller_manager_config.yaml"])
            for item in objects
            if item["metadata"]["name"] == "kueue-manager-config"
        ]
        text = yaml.safe_dump(self._configure(config))
        (self.root / "controller_manager_config.yaml").write_text(text)

    def _configure(self, config: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {
            **config,
            "leaderElection": {"leaderElect": False},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"},
            "metrics": {"bindAddress": f"127.0.0.1:{self._metrics}"},
            "webhook": {"port": self._webhook},
            "manageJobsWithoutQueueName": True,
            "integrations": {"frameworks": ["batch/job"]},
        }
        if self._visibility != OLD_VISIBILITY_PORT:
            address = {"bindAddress": "127.0.0.1", "bindPort": self._visibility}
            changed["visibilityServer"] = address
        return changed

    def _is_responding(self) -> bool:
        self._copy_certificates()
        version = self.variant.served[0]
        probe = {
            "apiVersion": f"kueue.x-k8s.io/{version}",
            "kind": "ResourceFlavor",
            "metadata": {"name": "does-kueue-answer"},
        }
        try:
            self._admin("create", "--dry-run=server", "-f", "-", stdin=json.dumps(probe))
            for served in self.variant.served:
                self._admin("get", "--raw", f"/apis/visibility.kueue.x-k8s.io/{served}")
        except (RefusedError, subprocess.TimeoutExpired):
            return False
        return True

    def _copy_certificates(self) -> None:
        """What the kubelet does with the Secret."""
        try:
            secret = self._admin.within(NAMESPACE).get("secret", "kueue-webhook-server-cert")
        except RefusedError:
            return
        for name, text in secret.get("data", {}).items():
            path = self.root / WEBHOOK_CERTIFICATES / name
            content = base64.b64decode(text)
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
