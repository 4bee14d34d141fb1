"""kubectl for tests, with objects as input and output.

What tests repeat until something holds is sent without a process of kubectl: together, those
processes cost more CPU time than the API servers.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from finetune_api.wire import JsonObject
from tests.support.api_reader import ApiReader, RefusedError, reader

__all__ = ["Kubectl", "RefusedError", "finetune", "until"]


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

    @property
    def _api(self) -> ApiReader:
        return reader(self.kubeconfig)

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
        return self._api.get(kind, name, self.namespace)

    def list(self, kind: str, selector: str = "") -> list[JsonObject]:
        return self._api.list(kind, selector, self.namespace)

    def patch_status(self, kind: str, name: str, status: JsonObject) -> None:
        self._api.patch_status(kind, name, status, self.namespace)

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
