"""FineTunes on a real cluster: real pods of the real images, under Pod Security `restricted`."""

import csv
import io
import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from finetune_api.names import COMPONENT_TRAIN, LABEL_COMPONENT, LABEL_FINETUNE
from finetune_api.quantities import gib_to_quantity, quantity_bytes
from tests.e2e.conftest import Cluster, Team, jsonl
from tests.e2e.policies import SECRET, VOLUME, missing_volume
from tests.support.audit import writes_by
from tests.support.kubectl import RefusedError, finetune, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

TWO_NODES = {"nodes": 2, "gpusPerNode": 0}


def rows_of(team: Team, status: dict) -> list[dict[str, str]]:  # type: ignore[type-arg]
    """results.csv."""
    uri = next(uri for uri in status["resultFiles"] if uri.endswith("results.csv"))
    return list(csv.DictReader(io.StringIO(team.read(uri))))


def test_two_nodes_train_a_model(team: Team, cluster: Cluster, name: str) -> None:
    start = cluster.audit_log.stat().st_size if cluster.audit_log else 0
    team.kubectl.apply(
        finetune(
            name,
            model="tiny",
            suffix="My Model!",
            trainingFile=team.put("train.jsonl", jsonl(64)),
            validationFile=team.put("valid.jsonl", jsonl(16, seed=1000)),
            hyperparameters={
                "nEpochs": 2,
                "batchSize": 8,
                "learningRate": 0.01,
                "computeClassificationMetrics": True,
                "classificationPositiveClass": " even",
                "classificationBetas": [2],
            },
            resources=TWO_NODES,
        )
    )
    status = team.kubectl.wait_state(name, "succeeded", "failed", seconds=240)
    assert status["state"] == "succeeded", json.dumps(status, indent=1)

    rows = rows_of(team, status)
    assert [int(row["step"]) for row in rows] == list(range(1, 17))
    assert list(rows[0])[:9] == [
        "step",
        "elapsed_tokens",
        "elapsed_examples",
        "training_loss",
        "training_sequence_accuracy",
        "training_token_accuracy",
        "validation_loss",
        "validation_sequence_accuracy",
        "validation_token_accuracy",
    ]
    measured = [f"classification/{name}" for name in ("accuracy", "auroc", "f1.0", "f2.0")]
    assert all(rows[15][name] for name in measured)
    assert not any(rows[0][name] for name in measured)
    assert float(rows[-1]["training_loss"]) < float(rows[0]["training_loss"])
    assert rows[7]["validation_loss"] and rows[15]["validation_loss"]
    assert int(rows[-1]["elapsed_examples"]) == 128

    model = status["fineTunedModel"]
    assert model.startswith(f"tiny:ft-{team.name}:my-model-20")
    resource = team.kubectl.get("model", model.replace(":", "-"))
    assert resource["spec"]["uri"] == status["modelUri"]
    prefix = status["modelUri"].removeprefix(f"s3://{cluster.bucket}/")
    files = {key.removeprefix(f"{prefix}/") for key in team.keys(prefix)}
    assert {"config.json", "generation_config.json", "model.safetensors", "manifest.json"} <= files
    assert {"tokenizer.json", "tokenizer_config.json"} <= files

    messages = [event["message"] for event in status["events"]]
    assert messages[0] == f"Created fine-tune: {name}"
    assert messages[-1] == "Fine-tune succeeded"
    assert any(message.startswith("Completed epoch 2/2 (training loss") for message in messages)
    described = team.kubectl("describe", "finetune", name)
    assert "Uploaded model:" in described

    pods = team.kubectl.list("pods", f"{LABEL_FINETUNE}={name},{LABEL_COMPONENT}={COMPONENT_TRAIN}")
    amounts = [pod["spec"]["containers"][0]["resources"] for pod in pods]
    estimate = gib_to_quantity(status["resolved"]["memoryPerPodGib"])
    assert [amount.keys() for amount in amounts] == [{"requests"}] * 2
    assert {quantity_bytes(each["requests"]["memory"]) for each in amounts} == {
        quantity_bytes(estimate)
    }

    user = f"system:serviceaccount:{team.name}:finetune-operator"
    writes = writes_by(cluster.of_this_machine(), user, team.name, start)
    progress_writes = 1 + (_seconds(status) // 10)
    assert writes["create jobs"] == 2
    assert writes["create services"] == writes["create models"] == 1
    assert writes["create events"] <= 4 + 2
    assert writes["patch finetunes/status"] <= 4 + progress_writes
    assert set(writes) == {
        "create jobs",
        "create services",
        "create models",
        "create events",
        "patch finetunes/status",
    }


def _seconds(status: dict) -> int:  # type: ignore[type-arg]
    attempt = status["attempts"][-1]
    span = datetime.fromisoformat(attempt["endedAt"]) - datetime.fromisoformat(attempt["startedAt"])
    return int(span.total_seconds())


def test_a_broken_line_17_fails_within_a_minute_without_training(team: Team, name: str) -> None:
    lines = jsonl(40).splitlines()
    lines[16] = lines[16][:-5]
    uri = team.put("broken.jsonl", "\n".join(lines))
    team.kubectl.apply(finetune(name, model="tiny", trainingFile=uri, resources=TWO_NODES))
    status = team.kubectl.wait_state(name, "failed", seconds=90)
    assert status["error"]["code"] == "InvalidData"
    assert "line 17" in status["error"]["message"]
    jobs = team.kubectl.list("jobs", f"finetune.dev/finetune={name}")
    assert [job["metadata"]["name"].rsplit("-", 1)[1] for job in jobs] == ["prepare"]
    (pod,) = team.kubectl.list("pods", f"finetune.dev/finetune={name}")
    took = datetime.fromisoformat(status["finishedAt"]) - datetime.fromisoformat(
        pod["status"]["startTime"]
    )
    assert took.total_seconds() < 60


def test_deletion_without_the_operator_keeps_the_model_whose_deletion_removes_its_files(
    team: Team, cluster: Cluster, name: str
) -> None:
    kubectl = team.kubectl
    made = finetune(
        name,
        model="tiny",
        trainingFile=team.put("short.jsonl", jsonl(16)),
        hyperparameters={"nEpochs": 1, "batchSize": 8},
        resources=TWO_NODES,
    )
    kubectl.apply(made)
    status = kubectl.wait_state(name, "succeeded", "failed", seconds=240)
    assert status["state"] == "succeeded", json.dumps(status, indent=1)
    mine = f"finetune.dev/finetune={name}"
    assert kubectl.list("jobs", mine) and kubectl.list("services", mine)
    kubectl("scale", "deployment/finetune-operator", "--replicas=0")
    try:
        until(lambda: not kubectl.list("pods", "app.kubernetes.io/component=operator"), 60)
        kubectl("delete", "finetune", name, "--timeout=10s")
        for kind in ("jobs", "services", "pods"):
            until(lambda kind=kind: not kubectl.list(kind, mine), 60)
        model = kubectl.get("model", status["fineTunedModel"].replace(":", "-"))
        prefix = model["spec"]["uri"].removeprefix(f"s3://{cluster.bucket}/")
        assert f"{prefix}/manifest.json" in team.keys(prefix)
    finally:
        kubectl("scale", "deployment/finetune-operator", "--replicas=1")
        kubectl("rollout", "status", "deployment/finetune-operator", "--timeout=60s")

    kubectl.apply(made)  # another UID adopts what the real trainer has published
    again = kubectl.wait_state(name, "succeeded", "failed", seconds=120)
    assert again["reason"] == "Adopted", json.dumps(again, indent=1)
    assert again["modelUri"] == status["modelUri"]
    assert not kubectl.list("jobs", f"{mine},finetune.dev/component=train")
    assert kubectl.get("model", model["metadata"]["name"])["spec"] == model["spec"]
    kubectl("delete", "finetune", name, "--timeout=10s")

    cluster.s3.put_object(Bucket=cluster.bucket, Key=f"{prefix}/by-hand.txt", Body=b"x")
    delete_with_files(team, model["metadata"]["name"])
    assert team.keys(prefix) == [f"{prefix}/by-hand.txt"]
    assert f"{prefix.removesuffix('/model')}/results.csv" in team.keys(prefix.removesuffix("model"))


def delete_with_files(team: Team, model: str) -> None:
    """Delete a Model whose files a Job of the real image deletes by its manifest."""
    patch = '{"spec": {"deletionPolicy": "Delete"}}'
    team.kubectl("patch", "model", model, "--type=merge", "-p", patch)
    until(lambda: "finalizers" in team.kubectl.get("model", model)["metadata"], 30)
    team.kubectl("delete", "model", model, "--timeout=90s")


def test_a_fine_tuned_model_is_continued_by_its_name(team: Team, name: str) -> None:
    kubectl = team.kubectl
    models = kubectl.list("models")
    if not models:
        pytest.fail("there is no Model; the first test of this file creates one")
    parent = models[0]["spec"]["id"]
    kubectl.apply(
        finetune(
            name,
            model=parent,
            suffix="again",
            trainingFile=team.put("again.jsonl", jsonl(16)),
            hyperparameters={"nEpochs": 1, "batchSize": 8},
            resources={"nodes": 1, "gpusPerNode": 0},
        )
    )
    status = kubectl.wait_state(name, "succeeded", "failed", seconds=240)
    assert status["state"] == "succeeded", json.dumps(status, indent=1)
    made = kubectl.get("model", status["fineTunedModel"].replace(":", "-"))
    assert (made["spec"]["base"], made["spec"]["parent"]) == ("tiny", parent)


def chats(count: int) -> str:
    """Like `jsonl`, as chats; the last of four messages is the completion."""
    rows = [json.loads(line) for line in jsonl(count).splitlines()]
    turns = [
        [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": "no", "weight": 0},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": row["completion"]},
        ]
        for row in rows
    ]
    return json.dumps([{"messages": messages} for messages in turns], indent=1)


def test_chats_train_an_adapter_with_zero_3_and_its_model_can_be_continued(
    team: Team, cluster: Cluster, name: str
) -> None:
    settings = {
        "method": {"type": "lora", "rank": 4, "alpha": 8},
        "deepspeed": {"zeroStage": 3},
        "resources": TWO_NODES,
    }
    learning = {"batchSize": 8, "learningRate": 0.05}
    metrics = {"computeClassificationMetrics": True, "classificationPositiveClass": " even"}
    team.kubectl.apply(
        finetune(
            name,
            model="tiny",
            suffix="chats",
            trainingFile=team.put("chats.json", chats(48)),
            validationFile=team.put("valid.json", chats(12)),
            hyperparameters={"nEpochs": 2, **learning, **metrics},
            **settings,
        )
    )
    status = team.kubectl.wait_state(name, "succeeded", "failed", seconds=240)
    assert status["state"] == "succeeded", json.dumps(status, indent=1)
    assert status["resolved"]["trainingExamples"] == 48
    rows = rows_of(team, status)
    assert float(rows[-1]["training_loss"]) < float(rows[0]["training_loss"])
    assert all(rows[step]["classification/auroc"] for step in (5, 11))
    prefix = status["modelUri"].removeprefix(f"s3://{cluster.bucket}/")
    files = {key.removeprefix(f"{prefix}/") for key in team.keys(prefix)}
    assert {"model.safetensors", "adapter/adapter_config.json"} <= files
    assert {"adapter/adapter_model.safetensors", "manifest.json"} <= files
    again = f"{name}-again"
    team.kubectl.apply(
        finetune(
            again,
            model=status["fineTunedModel"],
            trainingFile=team.put("again.json", chats(24)),
            hyperparameters={"nEpochs": 1, **learning},
            **settings,
        )
    )
    status = team.kubectl.wait_state(again, "succeeded", "failed", seconds=240)
    assert status["state"] == "succeeded", json.dumps(status, indent=1)
    assert "classification/auroc" not in rows_of(team, status)[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suffixx": "a"}, 'unknown field "spec.suffixx"'),
        ({"suffix": "x" * 65}, "may not be more than 64"),
    ],
)
def test_kubectl_apply_rejects_a_typo(team: Team, name: str, change: dict, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(RefusedError) as refused:
        team.kubectl.apply(finetune(name, **change))
    assert words in str(refused.value)


def test_a_missing_bucket_is_named(team: Team, name: str) -> None:
    uri = "s3://no-such-bucket/train.jsonl"
    team.kubectl.apply(finetune(name, model="tiny", trainingFile=uri, resources=TWO_NODES))
    status = team.kubectl.wait_state(name, "failed", seconds=90)
    assert status["error"]["code"] == "BucketNotFound"
    assert "no-such-bucket" in status["error"]["message"]


def test_a_missing_file_is_named(team: Team, name: str, cluster: Cluster) -> None:
    uri = f"s3://{cluster.bucket}/no-such-file.jsonl"
    team.kubectl.apply(finetune(name, model="tiny", trainingFile=uri, resources=TWO_NODES))
    status = team.kubectl.wait_state(name, "failed", seconds=90)
    assert status["error"]["code"] == "DataNotFound"
    assert "no-such-file.jsonl" in status["error"]["message"]


def test_wrong_credentials_are_reported(team: Team, name: str) -> None:
    secret_key = "wrong" * 8
    team.secret("wrong", AWS_SECRET_ACCESS_KEY=secret_key)
    uri = team.put("any.jsonl", jsonl(4))
    storage = {"secretName": "wrong"}
    team.kubectl.apply(
        finetune(name, model="tiny", trainingFile=uri, resources=TWO_NODES, storage=storage)
    )
    status = team.kubectl.wait_state(name, "failed", seconds=90)
    assert status["error"]["code"] == "S3AccessDenied"
    assert secret_key not in json.dumps(status)


def test_for_an_unknown_model_the_message_lists_the_catalog(team: Team, name: str) -> None:
    team.kubectl.apply(finetune(name, model="gpt5"))
    status = team.kubectl.wait_state(name, "failed", seconds=30)
    assert "the catalog has tiny, missing" in status["message"]


def test_a_base_model_whose_files_are_missing_is_named(team: Team, name: str) -> None:
    uri = team.put("fine.jsonl", jsonl(8))
    team.kubectl.apply(finetune(name, model="missing", trainingFile=uri, resources=TWO_NODES))
    status = team.kubectl.wait_state(name, "failed", seconds=90)
    assert status["error"]["code"] == "BaseModelNotFound"
    assert "nothing-here" in status["error"]["message"]
    (pod,) = team.kubectl.list("pods", f"finetune.dev/finetune={name}")
    (check,) = pod["status"]["initContainerStatuses"]  # the data is not read
    assert (check["name"], check["state"]["terminated"]["exitCode"]) == ("base-check", 65)


def test_a_missing_secret_is_explained_and_can_be_added_later(team: Team, name: str) -> None:
    uri = team.put("late.jsonl", jsonl(8))
    team.kubectl.apply(
        finetune(
            name,
            model="tiny",
            trainingFile=uri,
            resources=TWO_NODES,
            storage={"secretName": "late"},
            dryRun=True,
        )
    )
    until(lambda: 'secret "late" not found' in team.kubectl.status(name).get("message", ""), 60)
    team.secret("late")
    status = team.kubectl.wait_state(name, "succeeded", "failed", seconds=120)
    assert status["reason"] == "DryRun"


def test_a_volume_that_the_kubelet_cannot_mount_is_named(
    team: Team, cluster: Cluster, tmp_path: Path, name: str
) -> None:
    """The pod's status has no cause: the words are those of the kubelet's Events."""
    other = Team(cluster, f"{team.name}-3", tmp_path)
    other.create()
    policies = missing_volume(other.name)
    try:
        other.install("--set", "crds.install=false")
        cluster.kubectl.apply(*policies)
        uri = other.put("other.jsonl", jsonl(8))
        time.sleep(3)  # until the API server applies the policy
        other.kubectl.apply(
            finetune(name, model="tiny", trainingFile=uri, resources=TWO_NODES, dryRun=True)
        )
        until(
            lambda: other.kubectl.status(name).get("reason") == "VolumeMount",
            100,
            lambda: json.dumps(other.kubectl.status(name)),
        )
        message = other.kubectl.status(name)["message"]
        assert f'volume "{VOLUME}"' in message
        assert f'secret "{SECRET}" not found' in message
    finally:
        for item in policies:
            cluster.kubectl("delete", item["kind"].lower(), item["metadata"]["name"])
        other.remove()


def test_two_releases_run_next_to_each_other(
    team: Team, cluster: Cluster, tmp_path: Path, name: str
) -> None:
    other = Team(cluster, f"{team.name}-2", tmp_path)
    other.create()
    try:
        other.install("--set", "crds.install=false")
        uri = other.put("other.jsonl", jsonl(8))
        other.kubectl.apply(
            finetune(name, model="tiny", trainingFile=uri, resources=TWO_NODES, dryRun=True)
        )
        status = other.kubectl.wait_state(name, "succeeded", "failed", seconds=120)
        assert status["reason"] == "DryRun"
        assert team.kubectl.list("finetunes", "") is not None
        cluster.helm("uninstall", "finetune-operator", "-n", other.name)
        assert other.kubectl.get("finetune", name)["status"]["state"] == "succeeded"
    finally:
        other.remove()
