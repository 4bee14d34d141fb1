"""`create` against a real API server and a real S3 server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from finetune_api.model_names import resource_name
from finetune_cli.terminal.configuration import settings_file
from finetune_storage.manifests import sha256
from finetune_storage.s3 import Storage
from tests.cli.conftest import Run
from tests.cli.statuses import status
from tests.support.kubectl import Kubectl, finetune

pytestmark = pytest.mark.integration

ROW = '{"prompt": "a", "completion": "b"}\n'


def test_create_uploads_once_and_says_what_it_made(
    at_team: Run, team: Kubectl, home: Path, storage: Storage, bucket: str
) -> None:
    (home / "train.jsonl").write_text(ROW)
    where = f"s3://{bucket}/data"
    refused = at_team("create", "-t", "train.jsonl")
    assert (refused.returncode, "--upload-to s3://" in refused.stderr) == (2, True)
    made = at_team(
        *("create", "tone", "-t", "train.jsonl", "-m", "ada", "--n_epochs", "2"),
        *("--classification_betas", "0.6", "1", "--classification-positive-class", " yes"),
        *("--upload-to", where, "--no_follow"),
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("Created fine-tune: tone\n")
    address = f"{where}/{sha256(home / 'train.jsonl')[:32]}/train.jsonl"
    assert f"Uploaded train.jsonl (35 B): {address}" in made.stderr
    spec = team.get("finetune", "tone")["spec"]
    assert (spec["trainingFile"], spec["model"]) == (address, "ada")
    assert spec["hyperparameters"]["nEpochs"] == 2
    assert spec["hyperparameters"]["classificationBetas"] == [0.6, 1]
    again = at_team("create", "-t", "train.jsonl", "--suffix", "Support tone", "-o", "json")
    assert f"train.jsonl already exists: {address}" in again.stderr
    assert json.loads(again.stdout)["metadata"]["name"].startswith("support-tone-")
    assert json.loads(again.stdout)["spec"]["trainingFile"] == address


def test_several_files_are_uploaded_and_get_their_weights(
    at_team: Run, team: Kubectl, home: Path, storage: Storage, bucket: str
) -> None:
    (home / "old.jsonl").write_text(ROW * 3)
    (home / "new.jsonl").write_text(ROW)
    files = ("-t", "old.jsonl=3", "-t", "new.jsonl=1")
    made = at_team("create", "tone", *files, "--upload-to", f"s3://{bucket}/data", "--no-follow")
    assert made.returncode == 0, made.stderr
    folders = [
        f"s3://{bucket}/data/{sha256(home / f'{name}.jsonl')[:32]}" for name in ("old", "new")
    ]
    assert team.get("finetune", "tone")["spec"]["trainingFiles"] == [
        {"uri": f"{folders[0]}/old.jsonl", "weight": 3},
        {"uri": f"{folders[1]}/new.jsonl", "weight": 1},
    ]
    printed = at_team("get", "tone", "-o", "yaml").stdout
    again = at_team(
        *("create", "again", "-f", "-", "-t", "old.jsonl", "--no-follow"), stdin=printed
    )
    assert again.returncode == 0, again.stderr
    spec = team.get("finetune", "again")["spec"]
    assert (spec["trainingFile"], "trainingFiles" in spec) == (f"{folders[0]}/old.jsonl", False)


def test_a_suffix_may_have_64_characters(at_team: Run, team: Kubectl) -> None:
    flags = ("-t", "s3://acme/train.jsonl", "--no-follow")
    made = at_team("create", "tone", *flags, "--suffix", "x" * 64)
    assert made.returncode == 0, made.stderr
    assert team.get("finetune", "tone")["spec"]["suffix"] == "x" * 64
    refused = at_team("create", "other", *flags, "--suffix", "x" * 65)
    assert (refused.returncode, "at most 64 characters" in refused.stderr) == (2, True)


def test_what_the_server_refuses_is_said_before_anything_is_uploaded(
    at_team: Run, home: Path, storage: Storage, bucket: str
) -> None:
    (home / "train.jsonl").write_text(ROW)
    (home / "ft.yaml").write_text(
        yaml.safe_dump(
            {
                **finetune("tone"),
                "spec": {
                    "trainingFile": "train.jsonl",
                    "hyperparameters": {"computeClassificationMetrics": True},
                },
            }
        )
    )
    ran = at_team("create", "-f", "ft.yaml", "--upload-to", f"s3://{bucket}/data")
    assert ran.returncode == 1
    assert "computeClassificationMetrics needs a validationFile" in ran.stderr
    from finetune_api.uris import S3Uri

    assert storage.list(S3Uri.parse(f"s3://{bucket}/data")) == []
    assert not settings_file().exists()


def test_a_file_is_read_from_its_own_folder_and_flags_win(
    at_team: Run, team: Kubectl, home: Path, bucket: str
) -> None:
    (home / "deep").mkdir()
    (home / "deep" / "train.jsonl").write_text(ROW)
    manifest = {**finetune("deep"), "spec": {"trainingFile": "train.jsonl", "model": "ada"}}
    (home / "deep" / "ft.yaml").write_text(yaml.safe_dump(manifest))
    flags = ("-m", "babbage", "--set", "hyperparameters.seed=7", "--no-follow")
    ran = at_team("create", "-f", "deep/ft.yaml", *flags, "--upload-to", f"s3://{bucket}/d")
    assert ran.returncode == 0, ran.stderr
    spec = team.get("finetune", "deep")["spec"]
    assert (spec["model"], spec["hyperparameters"]["seed"]) == ("babbage", 7)
    assert spec["trainingFile"].endswith("/train.jsonl")
    exists = at_team("create", "-f", "deep/ft.yaml", "--no-follow")
    assert "'deep' already exists in namespace" in exists.stderr


def test_a_dry_run_makes_nothing(at_team: Run, team: Kubectl) -> None:
    ran = at_team("create", "tone", "-t", "s3://acme/a.jsonl", "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert yaml.safe_load(ran.stdout)["spec"] == {"trainingFile": "s3://acme/a.jsonl"}
    assert "Nothing was created" in ran.stderr
    defaulted = at_team("create", "tone", "-t", "s3://acme/a.jsonl", "--dry-run", "-o", "yaml")
    assert yaml.safe_load(defaulted.stdout)["spec"]["model"] == "curie"
    assert team.list("finetunes") == []


def test_a_fine_tuned_model_to_continue_must_exist(at_team: Run, team: Kubectl) -> None:
    name = "ada:ft-team:tone-2026-11-21-12-00-00"
    for flags in ((), ("--dry-run",)):
        ran = at_team("create", "more", "-t", "s3://acme/a.jsonl", "-m", name, *flags)
        assert ran.returncode == 1
        assert f"there is no model '{name}' in namespace" in ran.stderr
    assert team.list("finetunes") == []
    spec = {"id": name, "uri": "s3://acme/m", "base": "ada"}
    spec |= {"pretrainingLearningRate": 0.001, "contextLength": 256}
    kind = {"apiVersion": "finetune.dev/v1alpha1", "kind": "Model"}
    team.apply({**kind, "metadata": {"name": resource_name(name)}, "spec": spec})
    ran = at_team("create", "more", "-t", "s3://acme/a.jsonl", "-m", name, "--dry-run")
    assert ran.returncode == 0, ran.stderr


def test_what_get_prints_can_be_created_again(at_team: Run, team: Kubectl) -> None:
    team.apply(finetune("tone", model="ada", suffix="été\u2028no"))
    team.patch_status("finetune", "tone", status("failed", "Created fine-tune"))
    printed = at_team("get", "tone", "-o", "yaml").stdout
    assert yaml.safe_load(printed) == team.get("finetune", "tone")
    assert yaml.safe_load(printed) == json.loads(at_team("get", "tone", "-o", "json").stdout)
    made = at_team("create", "again", "-f", "-", "--n-epochs", "6", "--no-follow", stdin=printed)
    assert made.returncode == 0, made.stderr
    again, former = team.get("finetune", "again"), team.get("finetune", "tone")
    assert again["spec"]["hyperparameters"]["nEpochs"] == 6
    assert again["spec"]["suffix"] == former["spec"]["suffix"]
    assert "status" not in again
