"""kubectl for tests, with objects as input and output."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from finetune_api.wire import JsonObject


class RefusedError(Exception):
    """An error of kubectl, with its message."""


class Kubectl:
    """kubectl with one kubeconfig and one namespace."""

    def __init__(self, binary: str, kubeconfig: str, namespace: str = "default") -> None:
        self.binary = binary
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [self.binary, "--kubeconfig", self.kubeconfig, "-n", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise RefusedError(done.stderr.strip())
        return done.stdout

    def within(self, namespace: str) -> "Kubectl":
        return Kubectl(self.binary, self.kubeconfig, namespace)

    def apply(self, *objects: JsonObject) -> str:
        return self("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def create_raw(self, path: str, body: JsonObject) -> str:
        """Create a subresource that kubectl has no command for. path: below the namespace."""
        target = f"/api/v1/namespaces/{self.namespace}/{path}"
        return self("create", "--raw", target, "-f", "-", stdin=json.dumps(body))

    def apply_file(self, path: Path) -> str:
        return self("apply", "-f", str(path))

    def get(self, kind: str, name: str) -> JsonObject:
        found: JsonObject = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def list(self, kind: str, selector: str = "") -> list[JsonObject]:
        chosen = ["-l", selector] if selector else []
        items: list[JsonObject] = json.loads(self("get", kind, *chosen, "-o", "json"))["items"]
        return items

    def patch_status(self, kind: str, name: str, status: JsonObject) -> None:
        patch = json.dumps({"status": status})
        self("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)

    def status(self, name: str) -> JsonObject:
        """The status of a FineTune."""
        found: JsonObject = self.get("finetune", name).get("status", {})
        return found

    def wait_state(self, name: str, *states: str, seconds: float = 60) -> JsonObject:
        """Wait for one of the states and return the status. A timeout reports the status."""
        status: JsonObject = {}

        def reached() -> bool:
            nonlocal status
            status = self.status(name)
            return status.get("state") in states

        until(reached, seconds, lambda: f"{name}: {json.dumps(status, indent=1)[-3000:]}")
        return status


def until(
    holds: Callable[[], object],
    seconds: float,
    explain: Callable[[], str] = lambda: "",
    every: float = 0.3,
) -> None:
    """Wait for a condition. A timeout reports what was observed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(every)
    raise AssertionError(f"not within {seconds:.0f} s. {explain()}")


def finetune(name: str, **spec: Any) -> JsonObject:
    """A manifest as a user writes it."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": name},
        "spec": {"trainingFile": "s3://bucket/train.jsonl", **spec},
    }
