"""The commands of OpenAI's Python client 0.28.1, unchanged, against the gateway's process."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.clients.conftest import OWNER, USER, Gateway
from tests.integration.clients.installations import Clients
from tests.integration.clients.player import EPOCH, RESULTS, Player
from tests.support.kubectl import finetune

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VERSION = "0.28.1"
ROWS = '{"prompt": "How are you? ->", "completion": " Fine.\\n"}\n' * 8
CREATE = ("api", "fine_tunes.create", "-t", "test.jsonl", "-m", "ada")
LINE = re.compile(r"^\[[^\]]+\] (.*)$", re.MULTILINE)


class Shell:
    """A user's shell, in a folder with a file of training data."""

    def __init__(self, clients: Clients, gateway: Gateway, folder: Path) -> None:
        self.clients = clients
        self.gateway = gateway
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        for name in ("test.jsonl", "data/train.jsonl"):
            (folder / name).write_text(ROWS)

    def run(
        self, *arguments: str, account: str = OWNER, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        key = self.gateway.keys[account]
        return self.clients.openai(
            VERSION, self.gateway.url, key, *arguments, stdin=stdin, cwd=self.folder
        )

    def succeed(self, *arguments: str, account: str = OWNER, stdin: str = "") -> str:
        done = self.run(*arguments, account=account, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}{self.gateway.logs()}"
        return done.stdout

    def fail(self, *arguments: str, account: str = OWNER) -> str:
        done = self.run(*arguments, account=account)
        assert done.returncode != 0, f"{arguments}: {done.stdout}"
        return done.stdout + done.stderr


@pytest.fixture
def shell(clients: Clients, gateway: Gateway, tmp_path: Path) -> Shell:
    return Shell(clients, gateway, tmp_path / "home")


def test_the_first_commands_of_a_beginner_from_the_upload_to_the_deleted_model(
    shell: Shell, player: Player
) -> None:
    player.in_background(player.whole_life)
    shown = shell.succeed(*CREATE, "--suffix", "custom model name", "--n_epochs", "1")
    assert "Uploaded file from test.jsonl: file-" in shown
    created = re.search(r"Created fine-tune: (ft-\S+)", shown)
    assert created, shown
    job = created[1]
    told = LINE.findall(shown)
    for message in ("Fine-tune started", EPOCH, "Fine-tune succeeded"):
        assert told.count(message) == 1, shown
    assert "Job complete! Status: succeeded" in shown
    found = re.search(r"completions\.create -m (\S+)", shown)
    assert found, shown
    model = found[1]
    assert model.startswith("ada:ft-acme:custom-model-name-")

    followed = shell.succeed("api", "fine_tunes.follow", "-i", job)
    waited = "the data is being checked"  # the status message of a pending FineTune is no Event
    assert LINE.findall(followed) == [message for message in told if message != waited]
    listed = shell.succeed("api", "fine_tunes.list")
    assert f'"id": "{job}"' in listed
    assert f'"fine_tuned_model": "{model}"' in listed
    shown = shell.succeed("api", "fine_tunes.get", "-i", job)
    assert '"status": "succeeded"' in shown
    assert '"filename": "test.jsonl"' in shown
    assert '"n_epochs": 1' in shown
    assert EPOCH in shell.succeed("api", "fine_tunes.events", "-i", job)
    results = shell.succeed("api", "fine_tunes.results", "-i", job)
    assert results.encode().strip() == RESULTS.strip()
    rows = list(csv.DictReader(io.StringIO(results)))
    assert [row["step"] for row in rows] == ["1", "2"]

    assert model in shell.succeed("api", "models.list")
    assert f'"id": "{model}"' in shell.succeed("api", "models.get", "-i", model)
    refused = shell.fail("api", "models.delete", "-i", model, account=USER)
    assert "You must be an owner" in refused
    assert "403" in refused
    assert '"deleted": true' in shell.succeed("api", "models.delete", "-i", model)
    assert model not in shell.succeed("api", "models.list")


def test_a_name_with_a_folder_is_uploaded_like_any_other(shell: Shell) -> None:
    shown = shell.succeed(
        "api", "fine_tunes.create", "-t", "data/train.jsonl", "-m", "ada", "--no_follow"
    )
    assert "Uploaded file from data/train.jsonl: file-" in shown
    assert '"status": "pending"' in shown
    assert '"filename": "train.jsonl"' in shell.succeed("api", "files.list")


def test_the_second_upload_of_a_file_asks_and_an_empty_line_uploads_again(shell: Shell) -> None:
    command = (*CREATE, "--no_follow")
    shell.succeed(*command)
    again = shell.succeed(*command, stdin="\n")
    assert "potentially duplicated files" in again
    assert "Uploaded file from test.jsonl" in again
    file_id = re.search(r"file-[0-9a-z]{26}", again)
    assert file_id
    third = shell.succeed(*command, stdin=f"{file_id[0]}\n")
    assert "Reusing already uploaded file" in third


def test_every_flag_of_create_reaches_the_finetune(shell: Shell) -> None:
    shell.succeed(
        *CREATE,
        *("-v", "data/train.jsonl", "--no_follow", "--n_epochs", "2", "--batch_size", "4"),
        *("--learning_rate_multiplier", "0.1", "--prompt_loss_weight", "0.01"),
        *("--compute_classification_metrics", "--classification_n_classes", "2"),
        *("--classification_positive_class", " yes", "--classification_betas", "0.5", "2"),
    )
    (made,) = shell.gateway.team.list("finetunes")
    spec = made["spec"]
    used = spec["hyperparameters"]
    assert spec["resources"]["gpusPerNode"] == 0  # the administrator's part for this model
    assert spec["validationFile"].endswith("/train.jsonl")
    assert used["nEpochs"] == 2
    assert used["batchSize"] == 4
    assert used["learningRateMultiplier"] == 0.1
    assert used["promptLossWeight"] == 0.01
    assert used["computeClassificationMetrics"] is True
    assert used["classificationNClasses"] == 2
    assert used["classificationPositiveClass"] == " yes"
    assert used["classificationBetas"] == [0.5, 2]


def test_an_address_in_s3_is_a_file_too(shell: Shell) -> None:
    address = "s3://acme/elsewhere/train.jsonl"
    shell.succeed(
        "api", "fine_tunes.create", "-t", address, "-m", "ada", "--no_follow",
        "--no_check_if_files_exist",
    )  # fmt: skip
    (made,) = shell.gateway.team.list("finetunes")
    assert made["spec"]["trainingFile"] == address


MISTAKES = {
    ("api", "fine_tunes.create", "-t", "nosuch.jsonl", "-m", "ada"): "nosuch.jsonl",
    (*CREATE, "--suffix", "x" * 41): "40",
    ("api", "fine_tunes.create", "-t", "test.jsonl", "-m", "nosuch"): "nosuch",
    (*CREATE, "--n_epochs", "99999999"): "n_epochs",
    ("api", "fine_tunes.get", "-i", "ft-nosuch"): "ft-nosuch",
    ("api", "fine_tunes.cancel", "-i", "ft-nosuch"): "ft-nosuch",
    ("api", "models.get", "-i", "nosuch"): "nosuch",
    ("api", "files.get", "-i", "../../etc/passwd"): "File",
}


def test_an_error_is_one_sentence_with_its_cause(shell: Shell) -> None:
    for arguments, sentence in MISTAKES.items():
        shown = shell.fail(*arguments)
        assert "Error:" in shown, shown
        assert "HTTP status code: 4" in shown, shown
        assert sentence in shown, shown
        assert "Invalid response object" not in shown
        assert "Traceback" not in shown
    assert shell.gateway.team.list("finetunes") == []


def test_cancel_and_delete_and_a_finetune_of_kubectl(shell: Shell, player: Player) -> None:
    shell.gateway.team.apply(finetune("tone", model="ada", resources={"gpusPerNode": 0}))
    player.in_background(player.obey)
    shown = shell.succeed("api", "fine_tunes.cancel", "-i", "ft-tone")
    assert '"status": "cancelled"' in shown
    assert "cancelled already" in shell.fail("api", "fine_tunes.cancel", "-i", "ft-tone")
    assert "finetune-owner" in shell.fail("api", "fine_tunes.delete", "-i", "ft-tone", account=USER)
    assert '"deleted": true' in shell.succeed("api", "fine_tunes.delete", "-i", "ft-tone")
    assert shell.gateway.team.list("finetunes") == []


def test_files_are_listed_shown_and_deleted(shell: Shell) -> None:
    shown = shell.succeed("api", "files.create", "-f", "data/train.jsonl", "-p", "fine-tune")
    found = re.search(r'"id": "(file-[0-9a-z]{26})"', shown)
    assert found, shown
    file_id = found[1]
    assert file_id in shell.succeed("api", "files.list", account=USER)
    assert f'"bytes": {len(ROWS)}' in shell.succeed("api", "files.get", "-i", file_id)
    assert "finetune-owner" in shell.fail("api", "files.delete", "-i", file_id, account=USER)
    assert '"deleted": true' in shell.succeed("api", "files.delete", "-i", file_id)
    assert file_id not in shell.succeed("api", "files.list")


def test_the_newer_commands_of_the_same_client(shell: Shell) -> None:
    shown = shell.succeed(
        "api", "fine_tuning.job.create", "-t", "test.jsonl", "-m", "ada", "--suffix", "tone"
    )
    found = re.search(r'"id": "(ftjob-\S+)"', shown)
    assert found, shown
    assert found[1] in shell.succeed("api", "fine_tuning.job.list")
    shell.succeed("api", "fine_tuning.job.get", "-i", found[1])
    shell.succeed("api", "fine_tuning.job.events", "-i", found[1])


def test_a_revoked_key_a_strange_key_and_no_key(shell: Shell) -> None:
    gateway = shell.gateway
    key = gateway.new_key(USER)
    gateway.keys["carl"] = key
    shell.succeed("api", "fine_tunes.list", account="carl")
    gateway.revoke(key)
    for stranger in (key, "sk-" + "a" * 48, "nonsense"):
        gateway.keys["carl"] = stranger
        refused = shell.fail("api", "fine_tunes.list", account="carl")
        assert "401" in refused
        assert stranger not in refused


def test_a_kubernetes_token_is_a_key(shell: Shell) -> None:
    token = shell.gateway.team("create", "token", USER).strip()
    shell.gateway.keys["token"] = token
    assert '"object": "list"' in shell.succeed("api", "fine_tunes.list", account="token")
    assert token not in shell.gateway.logs()
