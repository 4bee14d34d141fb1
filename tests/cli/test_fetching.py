"""Results, reports, logs and models, from a real API server and a real S3 server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api import names
from finetune_storage.manifests import sha256
from finetune_storage.s3 import Storage
from tests.cli.conftest import Run
from tests.cli.statuses import resolved, status
from tests.support.kubectl import Kubectl, finetune

pytestmark = pytest.mark.integration


def test_results_and_report_come_from_s3(
    at_team: Run, team: Kubectl, home: Path, storage: Storage, bucket: str
) -> None:
    from finetune_api.layout import RunLayout

    team.apply(finetune("tone"))
    early = at_team("results", "tone")
    assert (
        early.returncode,
        "fine-tune 'tone' (pending) has no files in S3 yet" in early.stderr,
    ) == (1, True)
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
    assert "already exists" in at_team("report", "tone").stderr


@pytest.mark.parametrize("is_resolved", [True, False])
def test_what_never_trained_has_neither_results_nor_report_and_says_so(
    at_team: Run, team: Kubectl, bucket: str, is_resolved: bool
) -> None:
    team.apply(finetune("tone"))
    more = {"resolved": resolved(bucket)} if is_resolved else {}
    team.patch_status("finetune", "tone", status("failed", **more))
    for command, what in (("results", "results"), ("report", "report")):
        ran = at_team(command, "tone")
        assert ran.returncode == 1
        assert (
            f"error: fine-tune tone failed before its first training step, so it has no {what}\n"
            in ran.stderr
        )
        assert f"get tone -n {team.namespace}` shows the cause" in ran.stderr
        assert "--plot" not in ran.stderr


def test_a_training_that_failed_on_the_way_has_no_report_and_perhaps_results(
    at_team: Run, team: Kubectl, bucket: str
) -> None:
    team.apply(finetune("tone"))
    progress = {"step": 3, "steps": 9}
    known = status("failed", resolved=resolved(bucket), progress=progress)
    team.patch_status("finetune", "tone", known)
    assert "results --plot" in at_team("report", "tone").stderr


def test_logs_falls_back_to_what_the_status_kept(at_team: Run, team: Kubectl) -> None:
    """There is no kubelet here, so no pod has a log; the choice of the pod is tested below."""
    team.apply(finetune("tone"))
    assert "has no such pod" in at_team("logs", "tone").stderr
    error = {"code": "RankCrashed", "message": "m", "log": ["line 1", "line 2"]}
    team.patch_status("finetune", "tone", status("failed", error=error))
    ran = at_team("logs", "tone")
    assert (ran.returncode, ran.stdout) == (0, "line 1\nline 2\n")


def test_logs_of_deleted_training_pods_are_not_those_of_the_prepare_pod(
    at_team: Run, team: Kubectl
) -> None:
    team.apply(finetune("tone"))
    labels = {
        names.LABEL_UID: team.get("finetune", "tone")["metadata"]["uid"],
        names.LABEL_COMPONENT: names.COMPONENT_PREPARE,
    }
    team.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "tone-prepare", "labels": labels},
            "spec": {"containers": [{"name": names.CONTAINER, "image": "none"}]},
        }
    )
    ended = {"startedAt": "2026-11-21T12:00:00Z", "endedAt": "2026-11-21T12:01:00Z"}
    attempts = [{"number": n, **ended, "log": [f"{n} a", f"{n} b"]} for n in (1, 2)]
    team.patch_status("finetune", "tone", status("failed", attempts=attempts))
    ran = at_team("logs", "tone")
    said = "The pods of attempt 2 no longer exist; these are the last lines in the status\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2 a\n2 b\n", said)
    assert at_team("logs", "tone", "--attempt", "1", "--tail", "1").stdout == "1 b\n"
    none = at_team("logs", "tone", "--attempt", "5")
    assert "fine-tune tone (failed) has no attempt 5; the last one is 2" in none.stderr


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
    from finetune_storage.manifests import FileEntry, Manifest, file_entry, to_bytes

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
    assert "already exists and is not empty" in at_team("models", "pull", name, "mine").stderr
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
    assert "differs from the published one" in changed.stderr
    assert not (home / "broken").exists()
    assert [path.name for path in home.iterdir() if path.name.startswith(".broken")] == []

    unconfirmed = at_team("models", "delete", name)
    assert (unconfirmed.returncode, "add --yes" in unconfirmed.stderr) == (1, True)
    assert at_team("models", "delete", name, "--yes").returncode == 0
    assert "there is no model" in at_team("models", "get", name).stderr
