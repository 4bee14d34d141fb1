"""OpenAI's own commands against the gateway's pods: from the upload to the deleted model."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import RUN, Cluster, Team, jsonl
from tests.integration.clients.installations import Clients

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

VERSION = "0.28.1"
OWNER, USER = "anna", "bert"
SERVICE = "finetune-operator-gateway"


@contextmanager
def forwarded(team: Team) -> Iterator[str]:
    """The address of the gateway's Service on this machine."""
    command = [team.kubectl.binary, "--kubeconfig", team.kubectl.kubeconfig, "-n", team.name]
    command += ["port-forward", f"service/{SERVICE}", ":http"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found
            yield f"http://127.0.0.1:{found[1]}/v1"
        finally:
            process.terminate()


def key_of(team: Team, account: str) -> str:
    """Create an account with its role, and a key with the command line."""
    role = "finetune-owner" if account == OWNER else "finetune-user"
    team.kubectl("create", "serviceaccount", account)
    subject = f"--serviceaccount={team.name}:{account}"
    team.kubectl("create", "rolebinding", account, f"--role={role}", subject)
    command = (sys.executable, "-m", "finetune_cli", "keys", "create", "--for", account)
    done = subprocess.run(
        [*command, "-n", team.name],
        env={**os.environ, "KUBECONFIG": team.kubectl.kubeconfig},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.mark.usefixtures("team")  # its release has the CRDs
def test_openais_commands_train_complete_and_delete_a_model_on_the_cluster(
    cluster: Cluster, tiny_model: str, tmp_path: Path
) -> None:
    team = Team(cluster, f"{RUN}-gateway", tmp_path)
    team.create()
    # The keys exist before the pods: the kubelet takes a minute to update a mounted Secret.
    keys = {account: key_of(team, account) for account in (OWNER, USER)}
    team.install(
        *("--set", "crds.install=false", "--set", "organization=Acme"),
        *("--set", "gateway.enabled=true", "--set", "gateway.allowPlainHttp=true"),
        *("--set-json", f'gateway.keys.serviceAccounts=["{OWNER}","{USER}"]'),
        *("--set-json", 'models[0].fineTune={"resources":{"gpusPerNode":0}}'),
        *("--set", "gateway.server.enabled=true"),
        *("--set-json", 'gateway.server.resources={"requests":{"cpu":"100m","memory":"1Gi"}}'),
    )
    clients = Clients(tmp_path)
    (tmp_path / "train.jsonl").write_text(jsonl(32))
    with forwarded(team) as url:

        def run(*arguments: str, account: str = OWNER) -> subprocess.CompletedProcess[str]:
            return clients.openai(
                VERSION, url, keys[account], "api", *arguments, cwd=tmp_path, seconds=240
            )

        shown = run(
            *("fine_tunes.create", "-t", "train.jsonl", "-m", "tiny"),
            *("--suffix", "custom model name", "--n_epochs", "1", "--batch_size", "8"),
        )
        assert "Job complete! Status: succeeded" in shown.stdout, shown.stdout + shown.stderr
        assert shown.stdout.count("Fine-tune succeeded") == 1
        job = re.search(r"Created fine-tune: (ft-\S+)", shown.stdout)
        model = re.search(r"completions\.create -m (\S+)", shown.stdout)
        assert job and model
        assert model[1].startswith("tiny:ft-acme:custom-model-name-20")
        results = run("fine_tunes.results", "-i", job[1]).stdout
        assert [row["step"] for row in csv.DictReader(io.StringIO(results))] == ["1", "2", "3", "4"]
        prompt = "aaa 8 ->"
        asked = ("completions.create", "-m", model[1], "-p", prompt, "-M", "3", "-t", "0")
        completed = run(*asked, account=USER)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        assert prompt in completed.stdout
        assert len(completed.stdout.partition(prompt)[2].rstrip("\n")) > 0
        assert run(*asked, account=USER).stdout == completed.stdout
        refused = run("models.delete", "-i", model[1], account=USER)
        assert "finetune-owner" in refused.stdout + refused.stderr
        assert '"deleted": true' in run("models.delete", "-i", model[1]).stdout
    assert team.kubectl.list("models") == []
    team.remove()
