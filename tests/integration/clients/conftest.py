"""Fixtures: the gateway's process as the chart installs it, an S3 store, and OpenAI's clients.

Nothing runs the FineTunes here: a `Player` writes their statuses and files as the operator and its
pods do.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devcluster.controlplane import free_ports
from finetune_api.wire import JsonObject
from tests.integration.clients.installations import Clients
from tests.integration.clients.player import Player
from tests.integration.conftest import CHART
from tests.security.s3 import Tenant, tenants
from tests.support.kubectl import Kubectl, until

BUCKET = "acme"
OWNER, USER = "anna", "bert"
START_SECONDS = 60
VALUES: JsonObject = {
    "crds": {"install": False},
    "organization": "Acme",
    "output": f"s3://{BUCKET}/out",
    "models": [
        {
            "name": name,
            "uri": f"s3://{BUCKET}/models/{name}",
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
            "fineTune": {"resources": {"gpusPerNode": 0}},
        }
        for name in ("ada", "curie")
    ],
    "gateway": {
        "enabled": True,
        "allowPlainHttp": True,
        "keys": {"serviceAccounts": [OWNER, USER]},
    },
}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """An S3 server with the bucket acme."""
    with tenants(tmp_path_factory.mktemp("store"), BUCKET) as (tenant,):
        yield tenant


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(tmp_path_factory.mktemp("clients"))


class Gateway:
    """A process of the gateway with the chart's accounts, Role, and settings."""

    def __init__(self, team: Kubectl, helm: Path, folder: Path, store: Tenant) -> None:
        self.team = team
        self.folder = folder
        self.store = store
        self.port, self.operations_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None
        self._install(helm)
        self.keys = {account: self.new_key(account) for account in (OWNER, USER)}

    def _install(self, helm: Path) -> None:
        values = self.folder / "values.yaml"
        values.write_text(yaml.safe_dump(VALUES))
        command = [str(helm), "template", "ft", str(CHART), "-n", self.team.namespace]
        command += ["-f", str(values)]
        rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        objects = [item for item in yaml.safe_load_all(rendered) if item]
        rights = {"ServiceAccount", "Role", "RoleBinding"}
        self.team.apply(*(item for item in objects if item["kind"] in rights))
        for account, role in ((OWNER, "finetune-owner"), (USER, "finetune-user")):
            self.team("create", "serviceaccount", account)
            subject = f"--serviceaccount={self.team.namespace}:{account}"
            self.team("create", "rolebinding", account, f"--role={role}", subject)
        (config,) = (
            item
            for item in objects
            if item["kind"] == "ConfigMap" and item["metadata"]["name"].endswith("-gateway")
        )
        ((_, text),) = config["data"].items()
        settings = yaml.safe_load(text)
        (self.folder / "keys").mkdir()
        settings["keys"] = str(self.folder / "keys")
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        self.account = next(
            item["metadata"]["name"]
            for item in objects
            if item["kind"] == "ServiceAccount" and item["metadata"]["name"].endswith("-gateway")
        )
        kubeconfig = yaml.safe_load(Path(self.team.kubeconfig).read_text())
        token = self.team("create", "token", self.account).strip()
        kubeconfig["users"] = [{"name": "gateway", "user": {"token": token}}]
        for context in kubeconfig["contexts"]:
            context["context"]["user"] = "gateway"
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))

    def new_key(self, account: str, *options: str) -> str:
        """A key that the command line makes, in the folder that Kubernetes would mount."""
        made = self._keys("create", "--for", account, *options).strip()
        self._mount()
        return made

    def revoke(self, key: str) -> None:
        self._keys("revoke", "-", stdin=key)
        self._mount()

    def _keys(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "finetune_cli", "keys", *arguments, "-n", self.team.namespace],
            env={**os.environ, "KUBECONFIG": self.team.kubeconfig},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _mount(self) -> None:
        """Replace the folder in one step, as the kubelet does with a link."""
        secret = self.team.get("secret", "finetune-gateway-keys")
        new = self.folder / "keys.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        for name, data in (secret.get("data") or {}).items():
            (new / name).write_bytes(subprocess.check_output(["base64", "-d"], input=data.encode()))
        folder, old = self.folder / "keys", self.folder / "keys.old"
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        new.rename(folder)

    def start(self) -> None:
        log = (self.folder / "gateway.log").open("ab")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "finetune_gateway", "run"),
                *("--settings", str(self.folder / "settings.yaml")),
                *("--port", str(self.port), "--operations-port", str(self.operations_port)),
                *("--address", "127.0.0.1", "--kubeconfig", str(self.folder / "kubeconfig")),
            ],
            env={**os.environ, **self.store.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        until(self.is_ready, START_SECONDS, self.logs)

    def is_ready(self) -> bool:
        try:
            self.operations("/readyz")
        except OSError:
            return False
        return True

    def operations(self, path: str) -> str:
        where = f"http://127.0.0.1:{self.operations_port}{path}"
        with urllib.request.urlopen(where, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def logs(self) -> str:
        return (self.folder / "gateway.log").read_text()[-4000:]

    def stop(self) -> int:
        """End the process as Kubernetes does. Returns its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(60)
        self._process = None
        return code

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def installed(
    admin: Kubectl, tools: Path, tmp_path_factory: pytest.TempPathFactory, store: Tenant
) -> Iterator[Gateway]:
    """One gateway for the tests of a file, in a namespace of its own."""
    name = f"clients-{secrets.token_hex(3)}"
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    made = Gateway(admin.within(name), tools / "helm", tmp_path_factory.mktemp("gateway"), store)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def gateway(installed: Gateway) -> Iterator[Gateway]:
    """The gateway, in a namespace without FineTunes and Models."""
    yield installed
    installed.team("delete", "finetunes,models,resourcequotas", "--all")


@pytest.fixture
def player(gateway: Gateway) -> Iterator[Player]:
    with Player(gateway.team, gateway.store) as made:
        yield made
