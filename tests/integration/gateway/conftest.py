"""Fixtures: the accounts of a team, the rights of the gateway, and the gateway's own process."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.controlplane import ControlPlane
from finetune_api.api_keys import KeyRecord, hash_key, new_key
from finetune_api.names import ENV_LOCAL_ROOT, LOCAL_BUCKET
from tests.integration.conftest import CHART, START_SECONDS, _free_port
from tests.support.kubectl import Kubectl, until

GROUP = "rbac.authorization.k8s.io"
USER, OWNER, STRANGER = "bert", "anna", "eve"  # eve has all rights, but the gateway may not be eve


class Team:
    """A namespace with the chart's roles for users, accounts that have them, and the gateway."""

    def __init__(self, kubectl: Kubectl, helm: Path, folder: Path) -> None:
        self.kubectl = kubectl
        self.namespace = kubectl.namespace
        self.folder = folder
        rendered = subprocess.run(
            [
                *(str(helm), "template", "x", str(CHART), "-n", self.namespace),
                *("--set", "crds.install=false", "-s", "templates/user-roles.yaml"),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        roles = [item for item in yaml.safe_load_all(rendered) if item]
        assert {item["metadata"]["name"] for item in roles} == {"finetune-user", "finetune-owner"}
        accounts = [self._account(name) for name in (USER, OWNER, STRANGER, "gateway")]
        impersonation = {
            "apiGroups": [""],
            "resources": ["serviceaccounts"],
            "resourceNames": [USER, OWNER],
            "verbs": ["impersonate"],
        }
        kubectl.apply(
            *accounts,
            *roles,
            {
                "apiVersion": f"{GROUP}/v1",
                "kind": "Role",
                "metadata": {"name": "gateway"},
                "rules": [impersonation],
            },
        )
        for account, role in (
            (USER, "finetune-user"),
            (OWNER, "finetune-owner"),
            (STRANGER, "finetune-owner"),
            ("gateway", "gateway"),
        ):
            self.bind(account, role)

    def _account(self, name: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}

    def bind(self, account: str, role: str) -> None:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": self.namespace}
        self.kubectl.apply(
            {
                "apiVersion": f"{GROUP}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": account},
                "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role},
                "subjects": [subject],
            }
        )

    def token(self, account: str) -> str:
        return self.kubectl("create", "token", account).strip()

    def user(self, account: str) -> str:
        return f"system:serviceaccount:{self.namespace}:{account}"

    def kubeconfig(self, server: str = "") -> Path:
        """A kubeconfig with the gateway's token. server: replaces the API server's address."""
        config = yaml.safe_load(Path(self.kubectl.kubeconfig).read_text())
        config["users"] = [{"name": "gateway", "user": {"token": self.token("gateway")}}]
        for context in config["contexts"]:
            context["context"]["user"] = "gateway"
        if server:
            config["clusters"][0]["cluster"] = {"server": server}
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


class Gateway:
    """The gateway's process on this machine, with a folder for its files."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self.port, self.operations_port = _free_port(), _free_port()
        self.keys = team.folder / "keys"
        self.keys.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.kubeconfig = team.kubeconfig()
        self._log = team.folder / "gateway.log"

    def add_key(self, account: str, **fields: Any) -> str:
        """A new key for an account."""
        key = new_key()
        record = KeyRecord(
            sha256=hash_key(key), account=account, created=datetime.now(UTC), **fields
        )
        (self.keys / record.entry_name).write_text(record.to_json())
        return key

    def remove_key(self, key: str) -> None:
        (self.keys / hash_key(key)[:16]).unlink()

    def start(self, *, waits: bool = True, **settings: Any) -> None:
        """waits: until the process is ready; else, until it serves."""
        given = {
            "namespace": self.team.namespace,
            "organization": "acme",
            "output": f"s3://{LOCAL_BUCKET}/out",
            "files": f"s3://{LOCAL_BUCKET}/gateway",
            "keys": str(self.keys),
            "shutdownSeconds": 10,
            "models": [
                {
                    "name": "ada",
                    "uri": f"s3://{LOCAL_BUCKET}/models/ada",
                    "pretrainingLearningRate": 0.001,
                    "contextLength": 256,
                }
            ],
        } | settings
        path = self.team.folder / "gateway.yaml"
        path.write_text(yaml.safe_dump(given))
        store = self.team.folder / "store"
        store.mkdir(exist_ok=True)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "finetune_gateway", "run"),
                    *("--settings", str(path), "--kubeconfig", str(self.kubeconfig)),
                    *("--address", "127.0.0.1", "--port", str(self.port)),
                    *("--operations-port", str(self.operations_port)),
                ],
                env={**os.environ, ENV_LOCAL_ROOT: str(store)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        probe = "/readyz" if waits else "/healthz"
        process = self.process

        def answers() -> bool:
            assert process.poll() is None, self.log()
            return self.probe(probe)[0] == 200

        until(answers, START_SECONDS, self.log)

    def probe(self, path: str) -> tuple[int, str]:
        """The status and the text of a probe; 0: no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.operations_port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def ask(
        self, method: str, path: str, key: str = "", body: Any = None, **headers: str
    ) -> http.client.HTTPResponse:
        """An answer whose body has not been read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body)
        connection.request(method, path, body=data, headers=headers)
        return connection.getresponse()

    def json(self, method: str, path: str, key: str = "", body: Any = None) -> tuple[int, Any]:
        answer = self.ask(method, path, key, body)
        return answer.status, json.loads(answer.read())

    def log(self) -> str:
        return self._log.read_text()

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def accounts(team: Kubectl, tools: Path, tmp_path: Path, control_plane: ControlPlane) -> Team:
    return Team(team, tools / "helm", tmp_path)


@pytest.fixture
def gateway(accounts: Team) -> Iterator[Gateway]:
    """A gateway that is not started yet."""
    made = Gateway(accounts)
    yield made
    made.stop()
