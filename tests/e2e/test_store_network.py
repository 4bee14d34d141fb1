"""A store with a private authority, behind a proxy, and with virtual-host addressing."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster import paths
from finetune_api.names import CONTAINER_BASE_CHECK
from tests.e2e.conftest import RUN, Cluster, Team, jsonl
from tests.e2e.training import processes
from tests.support.certificates import Authority
from tests.support.connect_proxy import ConnectProxy
from tests.support.kubectl import finetune, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

DOMAIN = "store.test"  # a name that only the proxy can resolve
PORT = paths.PORTS.s3 + 1000


@contextmanager
def private_store(authority: Authority) -> Iterator[None]:
    """The files of devcluster's store, served by a second process: HTTPS and virtual hosts."""
    certificate, key = authority.issue(f"*.{DOMAIN}", DOMAIN)
    own = ("--cert", str(certificate), "--key", str(key), "--virtual-domain", f"{DOMAIN}:{PORT}")
    command, environment = _store_process()
    at = command.index("posix")
    listening = command.index("--port") + 1
    command[listening] = f"{paths.NODE_ADDRESS}:{PORT}"
    command[at:at] = own
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        until(_is_listening, 20)
        yield
    finally:
        process.kill()
        process.wait(10)


def _store_process() -> tuple[list[str], dict[str, str]]:
    for _, command, environment in processes():
        words = [word.decode() for word in command if word]
        if words and Path(words[0]).name == "versitygw" and "posix" in words:
            pairs = (item.decode().partition("=") for item in environment if item)
            return words, {name: value for name, _, value in pairs}
    raise AssertionError("devcluster's store does not run")


def _is_listening() -> bool:
    try:
        socket.create_connection((paths.NODE_ADDRESS, PORT), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("team")  # its release has the CRDs
def test_a_private_store_behind_a_proxy_with_virtual_hosts_is_used_by_all_pods(
    cluster: Cluster, tiny_model: str, tmp_path: Path, name: str
) -> None:
    assert cluster.of_this_machine()
    authority = Authority(tmp_path)
    team = Team(cluster, f"{RUN}-private", tmp_path)
    team.create()
    team.secret(
        "finetune-s3",
        AWS_ENDPOINT_URL=f"https://{DOMAIN}:{PORT}",
        AWS_S3_ADDRESSING_STYLE="virtual",
    )
    team.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "corporate"},
            "data": {"bundle.pem": authority.file.read_text()},
        }
    )
    node = ("--host", paths.NODE_ADDRESS, "--resolve", paths.NODE_ADDRESS)
    try:
        with private_store(authority), ConnectProxy(*node) as proxy:
            team.install(
                *("--set", "crds.install=false"),
                *("--set-json", 'pods.certificates={"configMap":"corporate","key":"bundle.pem"}'),
                *("--set", f"pods.proxy.https=http://{paths.NODE_ADDRESS}:{proxy.port}"),
            )
            team.kubectl.apply(
                finetune(
                    name,
                    model="tiny",
                    trainingFile=team.put("train.jsonl", jsonl(16)),
                    hyperparameters={"nEpochs": 1, "batchSize": 8, "learningRate": 0.003},
                    resources={"nodes": 2, "gpusPerNode": 0},
                )
            )
            status = team.kubectl.wait_state(name, "succeeded", "failed", seconds=240)
            assert status["state"] == "succeeded", status
            pods = team.kubectl.list("pods", f"finetune.dev/finetune={name}")
            targets = set(proxy.stop())
    finally:
        team.remove()
    # neither the ranks of the two nodes nor the operator's requests to rank 0 use the proxy
    assert targets == {f"CONNECT {cluster.bucket}.{DOMAIN}:{PORT}"}
    assert len(pods) == 3
    started = [
        container
        for pod in pods
        for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"])
    ]
    assert CONTAINER_BASE_CHECK in {container["name"] for container in started}
    for container in started:
        (mount,) = [
            item for item in container["volumeMounts"] if item["name"] == "finetune-certificates"
        ]
        assert mount["readOnly"] is True
    files = team.keys(status["modelUri"].removeprefix(f"s3://{cluster.bucket}/"))
    assert any(file.endswith("manifest.json") for file in files)
