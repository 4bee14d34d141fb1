"""The commands against a real API server and a real S3 server; the test plays the operator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import processes
from devcluster.controlplane import ControlPlane
from finetune_data.manifests import sha256
from finetune_data.storage import Storage
from tests.cli.conftest import Run
from tests.support.kubectl import Kubectl, RefusedError, finetune, until

pytestmark = pytest.mark.integration

ROW = '{"prompt": "a", "completion": "b"}\n'


def status(state: str, *messages: str, **more: Any) -> dict[str, Any]:
    """A status as the operator writes it."""
    events = [
        {"at": f"2026-11-21T12:00:{second:02d}Z", "reason": "Said", "message": message}
        for second, message in enumerate(messages)
    ]
    return {"state": state, "events": events, **more}


def resolved(bucket: str) -> dict[str, Any]:
    return {
        "base": {
            "name": "ada",
            "root": "ada",
            "uri": f"s3://{bucket}/ada",
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
        },
        "runtime": {"name": "cpu", "trainerImage": "t", "prepareImage": "p", "accelerator": "cpu"},
        "organization": "team",
        "output": f"s3://{bucket}/out",
        "secretName": "finetune-s3",
    }


# --- create -------------------------------------------------------------------------------------


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
    address = f"{where}/{sha256(home / 'train.jsonl')}/train.jsonl"
    assert f"Uploaded train.jsonl (35 B): {address}" in made.stderr
    spec = team.get("finetune", "tone")["spec"]
    assert (spec["trainingFile"], spec["model"]) == (address, "ada")
    assert spec["hyperparameters"]["nEpochs"] == 2
    assert spec["hyperparameters"]["classificationBetas"] == [0.6, 1]
    again = at_team("create", "-t", "train.jsonl", "--suffix", "Support tone", "-o", "json")
    assert f"train.jsonl is there already: {address}" in again.stderr
    assert json.loads(again.stdout)["metadata"]["name"].startswith("support-tone-")
    assert json.loads(again.stdout)["spec"]["trainingFile"] == address


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
    assert "'deep' exists already in namespace" in exists.stderr


def test_a_dry_run_makes_nothing(at_team: Run, team: Kubectl) -> None:
    ran = at_team("create", "tone", "-t", "s3://acme/a.jsonl", "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert yaml.safe_load(ran.stdout)["spec"] == {"trainingFile": "s3://acme/a.jsonl"}
    assert "Nothing was made" in ran.stderr
    defaulted = at_team("create", "tone", "-t", "s3://acme/a.jsonl", "--dry-run", "-o", "yaml")
    assert yaml.safe_load(defaulted.stdout)["spec"]["model"] == "curie"
    assert team.list("finetunes") == []


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


# --- looking and steering -----------------------------------------------------------------------


def test_list_shows_states_and_chooses(at_team: Run, team: Kubectl) -> None:
    assert "There are no fine-tunes in namespace" in at_team("list").stderr
    team.apply(finetune("one", model="ada"), finetune("two"))
    progress = {"step": 1, "steps": 2, "percent": "50 %", "loss": 1.25}
    team.patch_status("finetune", "one", status("running", progress=progress))
    lines = at_team("list").stdout.splitlines()
    assert lines[0].split()[:5] == ["NAME", "STATE", "MODEL", "PROGRESS", "LOSS"]
    assert lines[1].split()[:6] == ["one", "running", "ada", "50", "%", "1.2500"]
    assert lines[2].split()[:3] == ["two", "pending", "curie"]
    found = json.loads(at_team("list", "--state", "running", "-o", "json").stdout)
    assert [item["metadata"]["name"] for item in found["items"]] == ["one"]
    everywhere = at_team("list", "-A").stdout
    assert [team.namespace, "one", "running"] in [it.split()[:3] for it in everywhere.splitlines()]


def test_cancel_suspend_and_resume_change_one_field(at_team: Run, team: Kubectl) -> None:
    team.apply(finetune("a"), finetune("b"))

    def wanted(name: str) -> tuple[bool, bool]:
        spec = team.get("finetune", name)["spec"]
        return bool(spec.get("suspend")), bool(spec.get("cancel"))

    before = team.get("finetune", "a")["metadata"]["generation"]
    assert "is suspended after a checkpoint" in at_team("suspend", "a").stdout
    assert wanted("a") == (True, False)
    assert "asked for already" in at_team("suspend", "a").stdout
    assert at_team("resume", "a").returncode == 0
    assert wanted("a") == (False, False)
    ran = at_team("cancel", "-i", "a", "-i", "nothing", "-i", "b")
    assert (ran.returncode, "there is no fine-tune 'nothing'" in ran.stderr) == (1, True)
    assert wanted("a") == wanted("b") == (False, True)
    assert team.get("finetune", "a")["metadata"]["generation"] == before + 3
    assert "being cancelled, which is final" in at_team("resume", "a").stderr
    team.patch_status("finetune", "a", status("cancelled"))
    team.patch_status("finetune", "b", status("succeeded"))
    assert at_team("cancel", "a").returncode == 0
    late = at_team("cancel", "b")
    assert (late.returncode, "b has succeeded already" in late.stderr) == (1, True)


def test_who_may_do_little_is_told_what_to_ask_for(
    at_team: Run, team: Kubectl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}}
    rules = [{"apiGroups": ["finetune.dev"], "resources": ["finetunes"], "verbs": ["get", "list"]}]
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "guest"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "guest"}
    subject = {"kind": "ServiceAccount", "name": "guest", "namespace": team.namespace}
    team.apply(
        account,
        {**kind, "kind": "Role", "rules": rules},
        {**kind, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
        finetune("tone"),
    )
    team.patch_status("finetune", "tone", status("succeeded", "Fine-tune succeeded"))
    config = yaml.safe_load(Path(team.kubeconfig).read_text())
    config["users"] = [
        {"name": "guest", "user": {"token": team("create", "token", "guest").strip()}}
    ]
    for context in config["contexts"]:
        context["context"]["user"] = "guest"
    (home / "guest").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(home / "guest"))
    refused = at_team("create", "-t", "s3://acme/a")
    assert refused.returncode == 1
    assert "cannot create resource" in refused.stderr
    assert "Role finetune-user" in refused.stderr
    assert at_team("follow", "tone").returncode == 0
    doctor = json.loads(at_team("doctor", "-o", "json").stdout)
    found = {item["check"]: item for item in doctor}
    assert found["permissions"]["level"] == "error"
    assert "create finetunes" in found["permissions"]["detail"]
    assert found["GPUs"]["level"] == found["pods' S3 login"]["level"] == "unknown"
    config["users"][0]["user"]["token"] = "wrong"
    (home / "guest").write_text(yaml.safe_dump(config))
    assert "does not accept this login" in at_team("list").stderr


# --- follow -------------------------------------------------------------------------------------

Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(home: Path, team: Kubectl) -> Iterator[Launch]:
    """`finetune` as a process of its own that goes on; what is left of it ends with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, kubeconfig: str = team.kubeconfig) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "finetune_cli", "-n", team.namespace, *arguments],
            env={**os.environ, "KUBECONFIG": kubeconfig},
            stdout=(home / "out").open("w"),
            stderr=(home / "err").open("w"),
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 3), ("cancelled", 3)])
def test_follow_tells_the_story_and_ends_with_its_exit_code(
    launch: Launch, team: Kubectl, home: Path, state: str, code: int
) -> None:
    team.apply(finetune("tone"))
    process = launch("follow", "tone")
    until(lambda: "waiting for the operator" in (home / "out").read_text(), 30)
    team.patch_status("finetune", "tone", status("running", "Created fine-tune", stage="training"))
    until(lambda: "Created fine-tune" in (home / "out").read_text(), 30)
    team.patch_status("finetune", "tone", status(state, "Created fine-tune", f"Fine-tune {state}"))
    assert process.wait(30) == code
    text = (home / "out").read_text()
    assert text.count("Created fine-tune") == 1
    assert f"Fine-tune {state}" in text
    assert "\x1b" not in text


def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(
    launch: Launch, team: Kubectl, home: Path
) -> None:
    process = launch("create", "tone", "-t", "s3://acme/a.jsonl", "-m", "ada")
    until(lambda: "waiting for the operator" in (home / "out").read_text(), 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    told = (home / "err").read_text()
    assert "The fine-tune tone goes on." in told
    assert f"To come back:  finetune follow tone -n {team.namespace}" in told
    assert "Traceback" not in told
    assert not team.get("finetune", "tone")["spec"].get("cancel")


def test_a_deleted_one_is_an_error(launch: Launch, team: Kubectl, home: Path) -> None:
    team.apply(finetune("tone"))
    process = launch("follow", "tone", "-o", "json")
    team.patch_status("finetune", "tone", status("running"))
    until(lambda: '"state": "running"' in (home / "out").read_text(), 30)
    team("delete", "finetune", "tone")
    assert process.wait(30) == 1
    assert "was deleted while it was followed" in (home / "err").read_text()


@pytest.mark.slow
def test_follow_survives_a_restart_of_the_api_server(
    launch: Launch, team: Kubectl, home: Path, control_plane: ControlPlane
) -> None:
    """A real one is killed, stays away, and comes back; nothing is told twice or lost."""
    team.apply(finetune("tone"))
    team.patch_status("finetune", "tone", status("running", "Created fine-tune", stage="training"))
    process = launch("follow", "tone")
    until(lambda: "Created fine-tune" in (home / "out").read_text(), 30)
    server = next(it for it in control_plane._processes if "apiserver" in it.name)
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
    server.send(signal.SIGKILL)
    until(lambda: "reconnecting: " in (home / "out").read_text(), 60)
    control_plane._processes.append(
        processes.start(server.name, command, home / "apiserver.log", ends_with_us=True)
    )
    until(lambda: _answers(team), 60)
    until(lambda: "connected again" in (home / "out").read_text(), 60)
    team.patch_status(
        "finetune", "tone", status("succeeded", "Created fine-tune", "Fine-tune succeeded")
    )
    assert process.wait(60) == 0, (home / "err").read_text()
    text = (home / "out").read_text()
    assert text.count("Created fine-tune") == 1
    assert text.count("Job complete!") == 1


def _answers(team: Kubectl) -> bool:
    try:
        return bool(team.get("finetune", "tone"))
    except RefusedError:
        time.sleep(0.2)
        return False


# --- results, report, logs, models --------------------------------------------------------------


def test_results_and_report_come_from_s3(
    at_team: Run, team: Kubectl, home: Path, storage: Storage, bucket: str
) -> None:
    from finetune_api.layout import RunLayout

    team.apply(finetune("tone"))
    early = at_team("results", "tone")
    assert (early.returncode, "nothing of 'tone' is in S3 yet" in early.stderr) == (1, True)
    team.patch_status("finetune", "tone", status("running", resolved=resolved(bucket)))
    none = at_team("results", "tone")
    assert "no results file available for fine-tune tone (running)" in none.stderr
    uid = team.get("finetune", "tone")["metadata"]["uid"]
    layout = RunLayout.of(f"s3://{bucket}/out", team.namespace, "tone", uid)
    text = "step,training_loss\n1,2.5\n2,2\n3,1.5\n"
    storage.write_bytes(layout.results, text.encode())
    assert at_team("results", "tone").stdout == text
    rows = json.loads(at_team("results", "-i", "tone", "-o", "json").stdout)
    assert rows[2] == {"step": 3, "training_loss": 1.5}
    plot = at_team("results", "tone", "--plot").stdout
    assert "training_loss 1.5" in plot
    assert max(map(len, plot.splitlines())) <= 80
    missing = at_team("report", "tone")
    assert (missing.returncode, "has no report" in missing.stderr) == (1, True)
    storage.write_bytes(layout.root.child("report.html"), b"<html>")
    assert at_team("report", "tone").returncode == 0
    assert (home / "tone-report.html").read_bytes() == b"<html>"
    assert "exists already" in at_team("report", "tone").stderr


def test_logs_falls_back_to_what_the_status_kept(at_team: Run, team: Kubectl) -> None:
    """There is no kubelet here, so no pod has a log; the choice of the pod is tested below."""
    team.apply(finetune("tone"))
    assert "has no such pod" in at_team("logs", "tone").stderr
    error = {"code": "RankCrashed", "message": "m", "log": ["line 1", "line 2"]}
    team.patch_status("finetune", "tone", status("failed", error=error))
    ran = at_team("logs", "tone")
    assert (ran.returncode, ran.stdout) == (0, "line 1\nline 2\n")


def a_model(team: Kubectl, bucket: str, digest: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "ada-ft-team-tone-2026-11-21-12-00-00"},
        "spec": {
            "id": "ada:ft-team:tone-2026-11-21-12-00-00",
            "uri": f"s3://{bucket}/model",
            "base": "ada",
            "manifestSha256": digest,
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
            "trainedTokens": 10000,
            "metrics": {"trainingLoss": 1.25, "validationTokenAccuracy": 0.5},
            **spec,
        },
    }


def test_a_model_is_listed_fetched_whole_and_deleted(
    at_team: Run, team: Kubectl, home: Path, storage: Storage, bucket: str
) -> None:
    from finetune_api.uris import S3Uri
    from finetune_data.manifests import FileEntry, Manifest, file_entry, to_bytes

    source = home / "source"
    (source / "adapter").mkdir(parents=True)
    for path in ("model.safetensors", "config.json", "adapter/adapter_model.safetensors"):
        (source / path).write_bytes(path.encode() * 100)
    files = [
        file_entry(source, str(path.relative_to(source)))
        for path in sorted(source.rglob("*"))
        if path.is_file()
    ]
    prefix = S3Uri.parse(f"s3://{bucket}/model")
    for entry in files:
        storage.upload_file(source / entry.path, prefix.child(entry.path))
    (source / "manifest.json").write_bytes(to_bytes(Manifest(files=files)))
    storage.upload_file(source / "manifest.json", prefix.child("manifest.json"))
    team.apply(a_model(team, bucket, sha256(source / "manifest.json")))
    name = "ada:ft-team:tone-2026-11-21-12-00-00"

    assert at_team("models", "list").stdout.splitlines()[1].split()[:4] == [
        name,
        "ada",
        "1.2500",
        "10,000",
    ]
    shown = at_team("models", "get", name).stdout
    assert "validation token accuracy  0.5" in shown
    assert "its files stay in S3" in shown
    assert yaml.safe_load(at_team("models", "get", name, "-o", "yaml").stdout)["spec"]["id"] == name

    pulled = at_team("models", "pull", name, "mine")
    assert pulled.returncode == 0, pulled.stderr
    copied = {str(path.relative_to(home / "mine")) for path in (home / "mine").rglob("*.*")}
    assert copied == {entry.path for entry in files} | {"manifest.json"}
    assert "is there and not empty" in at_team("models", "pull", name, "mine").stderr
    only = at_team("models", "pull", name, "small", "--adapter-only")
    assert only.returncode == 0, only.stderr
    assert not (home / "small" / "model.safetensors").exists()

    storage.write_bytes(prefix.child("config.json"), b"x" * files[0].size)
    damaged = at_team("models", "pull", name, "broken")
    assert (damaged.returncode, "is damaged" in damaged.stderr) == (1, True)
    storage.write_bytes(
        prefix.child("manifest.json"),
        to_bytes(Manifest(files=[FileEntry(path="../../escape", size=1, sha256="0")])),
    )
    changed = at_team("models", "pull", name, "broken")
    assert "is not the one that was published" in changed.stderr
    assert not (home / "broken").exists()
    assert [path.name for path in home.iterdir() if path.name.startswith(".broken")] == []

    unconfirmed = at_team("models", "delete", name)
    assert (unconfirmed.returncode, "add --yes" in unconfirmed.stderr) == (1, True)
    assert at_team("models", "delete", name, "--yes").returncode == 0
    assert "there is no model" in at_team("models", "get", name).stderr


# --- doctor, completion -------------------------------------------------------------------------


def test_the_doctor_names_what_is_missing_and_its_remedy(
    at_team: Run, team: Kubectl, bucket: str
) -> None:
    found = {
        item["check"]: item
        for item in json.loads(
            at_team("doctor", "--upload-to", f"s3://{bucket}/data", "-o", "json").stdout
        )
    }
    levels = {name: item["level"] for name, item in found.items()}
    assert levels == {
        "cluster": "ok",
        "CRDs": "ok",
        "permissions": "ok",
        "operator": "warning",
        "pods' S3 login": "warning",
        "GPUs": "warning",
        "S3 from here": "ok",
    }
    assert "helm install" in found["operator"]["remedy"]
    assert "kubectl create secret generic finetune-s3" in found["pods' S3 login"]["remedy"]
    team("create", "secret", "generic", "finetune-s3", "--from-literal=AWS_ACCESS_KEY_ID=a")
    ran = at_team("doctor", "--upload-to", "s3://no-such-bucket-here")
    assert ran.returncode == 1
    assert "ok       pods' S3 login: Secret finetune-s3 is in namespace" in ran.stdout
    assert "error    S3 from here: there is no bucket 'no-such-bucket-here'" in ran.stdout


def test_names_are_completed_from_the_cluster(
    at_team: Run, run: Run, team: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.apply(finetune("tone-a"), finetune("tone-b"), finetune("other"))
    monkeypatch.setenv("_FINETUNE_COMPLETE", "bash_complete")
    words = f"finetune -n {team.namespace} get to"
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "4")
    assert run().stdout.splitlines() == ["plain,tone-a", "plain,tone-b"]
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert run().stdout.strip() == ""


def test_a_cluster_without_the_operator_says_so(
    at_team: Run, admin: Kubectl, team: Kubectl
) -> None:
    """The kind is missing under this version of the API: what an empty cluster answers."""
    from finetune_cli.cluster.connection import connect
    from finetune_cli.cluster.errors import ApiError
    from finetune_cli.cluster.resources import Resource
    from finetune_cli.options import Place

    nothing = Resource(connect(Place(namespace=team.namespace)), "nothings", "Nothing")
    with pytest.raises(ApiError, match="CRDs are not installed"):
        nothing.list()
