"""The validation of FineTunes by a real API server, with the messages that a user reads."""

import json
from typing import Any

import pytest

from tests.support.kubectl import Kubectl, RefusedError, finetune, until

pytestmark = pytest.mark.integration

VALIDATION = {"validationFile": "s3://bucket/valid.jsonl"}
ONE, OTHER = {"uri": "s3://bucket/one.jsonl"}, {"uri": "s3://bucket/other.jsonl"}


def several(*files: dict[str, Any]) -> dict[str, Any]:
    """A spec with trainingFiles in place of trainingFile."""
    return {"trainingFile": None, "trainingFiles": list(files)}


def without_none(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without the fields of its spec that are None."""
    spec = {key: value for key, value in manifest["spec"].items() if value is not None}
    return {**manifest, "spec": spec}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"suffix": "x" * 64},
        {"output": f"s3://bucket/{'x' * 500}", "trainingFile": f"s3://bucket/{'语' * 337}"},
        several(ONE),
        several(ONE, OTHER),
        several(ONE | {"weight": 0.001}, OTHER | {"weight": 1000}),
        several(*[{"uri": f"s3://bucket/{'x' * 1000}{n}", "weight": 1} for n in range(16)]),
        {"hyperparameters": {"nEpochs": 50, "promptLossWeight": 0, "learningRate": 1e-5}},
        {"method": {"type": "lora", "rank": 8, "targets": ["q_proj"]}},
        {"deepspeed": {"zeroStage": 3, "offload": "parameters"}},
        {"deepspeed": {"overlapCommunication": True}},
        {"scheduling": {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"operator": "Exists"}]}},
        {"resources": {"memory": "524288Ki", "shm": "1.5G", "ephemeralStorage": "1.5Ti"}},
        VALIDATION
        | {
            "hyperparameters": {
                "computeClassificationMetrics": True,
                "classificationPositiveClass": " yes",
                "classificationBetas": [0.6, 2],
            }
        },
    ],
)
def test_what_is_right_is_accepted(team: Kubectl, spec: dict) -> None:  # type: ignore[type-arg]
    team.apply(without_none(finetune("right", **spec)))


def test_defaults_stand_in_the_object(team: Kubectl) -> None:
    team.apply(finetune("tone"))
    spec = team.get("finetune", "tone")["spec"]
    assert spec["model"] == "curie"
    assert spec["hyperparameters"]["nEpochs"] == 4
    assert spec["hyperparameters"]["promptLossWeight"] == 0.1
    assert spec["resources"] == {"nodes": 1, "gpusPerNode": 1, "gpuResource": "nvidia.com/gpu"}
    assert spec["maxRestarts"] == 3


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"suffixx": "a"}, 'unknown field "spec.suffixx"'),
        ({"suffix": "x" * 65}, "spec.suffix: Too long: may not be more than 64"),
        ({"trainingFile": "train.jsonl"}, "spec.trainingFile"),
        ({"output": f"s3://bucket/{'x' * 501}"}, "spec.output may have at most 512 bytes"),
        ({"output": f"s3://bucket/{'语' * 167}"}, "spec.output may have at most 512 bytes"),
        ({"trainingFile": f"s3://bucket/{'语' * 338}"}, "trainingFile may have at most 1024 bytes"),
        (
            {"validationFile": f"s3://b-1/{'语' * 400}"},
            "validationFile may have at most 1024 bytes",
        ),
        (several({"uri": f"s3://b-1/{'语' * 400}"}), "training file may have at most 1024 bytes"),
        ({"trainingFile": None}, "trainingFile is required, or trainingFiles for several files"),
        ({"trainingFiles": [ONE, OTHER]}, "set trainingFile or trainingFiles, not both"),
        (several(ONE, OTHER, ONE), "trainingFiles lists a file twice"),
        (several(ONE | {"weight": 3}, OTHER), "trainingFiles: set a weight for every file or for"),
        (several(ONE | {"weight": 0}, OTHER | {"weight": 1}), "greater than or equal to 0.001"),
        (several(ONE | {"weight": 1e9}, OTHER | {"weight": 1}), "less than or equal to 1000"),
        (several(*[{"uri": f"s3://bucket/{n}"} for n in range(17)]), "must have at most 16 items"),
        (several(), "should have at least 1 items"),
        (several({"weight": 1}), "spec.trainingFiles[0].uri: Required value"),
        (several({"uri": "train.jsonl"}), "spec.trainingFiles[0].uri"),
        ({"hyperparameters": {"nEpochs": 0}}, "should be greater than or equal to 1"),
        ({"hyperparameters": {"nEpochs": 51}}, "should be less than or equal to 50"),
        ({"hyperparameters": {"promptLossWeight": 1.5}}, "less than or equal to 1"),
        ({"hyperparameters": {"nEpochs": "four"}}, "must be of type integer"),
        (
            {"hyperparameters": {"computeClassificationMetrics": True}},
            "computeClassificationMetrics needs a validationFile",
        ),
        (
            VALIDATION | {"hyperparameters": {"computeClassificationMetrics": True}},
            "needs classificationNClasses, or classificationPositiveClass",
        ),
        (
            {"hyperparameters": {"classificationBetas": [1.0]}},
            "classificationBetas needs classificationPositiveClass",
        ),
        (
            {"hyperparameters": {"learningRate": 0.1, "learningRateMultiplier": 0.1}},
            "learningRate or learningRateMultiplier, not both",
        ),
        ({"method": {"type": "qlora"}}, 'supported values: "full", "lora"'),
        ({"method": {"type": "lora", "alpha": 0}}, "greater than or equal to 0.01"),
        ({"method": {"rank": 8}}, "belong to method.type lora"),
        (
            {"deepspeed": {"zeroStage": 2, "offload": "parameters"}},
            "offload parameters needs deepspeed.zeroStage 3",
        ),
        (
            {"deepspeed": {"zeroStage": 1, "overlapCommunication": True}},
            "overlapCommunication needs deepspeed.zeroStage 3",
        ),
        ({"resources": {"memory": "64GB"}}, "spec.resources.memory in body should match"),
        ({"resources": {"ephemeralStorage": "1ki"}}, "spec.resources.ephemeralStorage in body"),
        ({"image": "evil:latest"}, 'unknown field "spec.image"'),
        ({"serviceAccountName": "admin"}, 'unknown field "spec.serviceAccountName"'),
    ],
)
def test_what_is_wrong_is_refused_in_plain_words(team: Kubectl, spec: dict, words: str) -> None:  # type: ignore[type-arg]
    manifest = without_none(finetune("wrong", **spec))
    with pytest.raises(RefusedError) as refused:
        team.apply(manifest)
    assert words in str(refused.value)


def test_a_name_that_no_label_holds_is_refused(team: Kubectl) -> None:
    with pytest.raises(RefusedError, match="at most 63 characters"):
        team.apply(finetune("x" * 64))


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ({}, {"model": "davinci"}, "model"),
        ({}, {"suffix": "new"}, "suffix"),
        ({"suffix": "old"}, {}, "suffix"),
        ({}, VALIDATION, "validationFile"),
        ({}, {"hyperparameters": {"nEpochs": 5}}, "hyperparameters"),
        ({}, {"resources": {"nodes": 2}}, "resources"),
        ({}, {"deepspeed": {"zeroStage": 2}}, "deepspeed"),
        ({"deepspeed": {"zeroStage": 2}}, {}, "deepspeed"),
        ({}, several(ONE), "trainingFile"),
        (several(ONE), several(ONE, OTHER), "trainingFiles"),
        ({}, {"podLabels": {"team": "a"}}, "podLabels"),
        ({}, {"dryRun": True}, "dryRun"),
        ({}, {"reuse": "Never"}, "reuse"),
        ({"maxRestarts": 0}, {"maxRestarts": 1, "output": "s3://bucket/new"}, "output"),
    ],
)
def test_what_changes_the_training_is_immutable(
    team: Kubectl,
    before: dict,  # type: ignore[type-arg]
    after: dict,  # type: ignore[type-arg]
    field: str,
) -> None:
    team.apply(without_none(finetune("tone", **before)))
    for _ in range(2):
        with pytest.raises(RefusedError, match=f"{field} cannot be changed once created"):
            team.apply(without_none(finetune("tone", **after)))
        team.patch_status("finetune", "tone", {"state": "running"})


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": True},
        {"cancel": True},
        {"activeDeadlineSeconds": 60},
        {"pendingDeadlineSeconds": 60},
        {"stallSeconds": 60},
        {"ttlSecondsAfterFinished": 60},
        {"maxRestarts": 0},
    ],
)
def test_what_steers_a_run_may_change(team: Kubectl, change: dict) -> None:  # type: ignore[type-arg]
    team.apply(finetune("tone"))
    team.apply(finetune("tone", **change))


def test_the_columns_are_the_promised_ones(team: Kubectl) -> None:
    team.apply(finetune("tone"))
    team.patch_status(
        "finetune",
        "tone",
        {"state": "running", "progress": {"percent": "40 %", "loss": 1.25, "eta": "soon"}},
    )
    header, row = team("get", "ft").splitlines()
    assert header.split() == [
        "NAME",
        "STATE",
        "MODEL",
        "PROGRESS",
        "LOSS",
        "ETA",
        "FINE-TUNED",
        "MODEL",
        "AGE",
    ]
    assert row.split()[:7] == ["tone", "running", "curie", "40", "%", "1.25", "soon"]


def test_why_it_waits_stands_in_the_wide_table(team: Kubectl) -> None:
    team.apply(finetune("tone"))
    message = 'secret "my-login" not found'
    team.patch_status(
        "finetune", "tone", {"state": "pending", "reason": "ContainerConfig", "message": message}
    )
    header, row = team("get", "ft", "-o", "wide").splitlines()
    assert header.split()[-2:] == ["REASON", "MESSAGE"]
    assert row.rstrip().endswith(message)
    assert "ContainerConfig" in row


def test_a_long_output_of_an_earlier_version_stays_valid(admin: Kubectl, team: Kubectl) -> None:
    """A FineTune with a status is an old one: the operator writes one at once."""
    old, new = (finetune(name, output=f"s3://bucket/{'x' * 1000}") for name in ("old", "new"))
    rules = "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations"

    def set_rules(value: list[dict[str, Any]]) -> None:
        patch = json.dumps([{"op": "replace", "path": rules, "value": value}])
        admin("patch", "crd", "finetunes.finetune.dev", "--type=json", "-p", patch)

    def is_accepted(manifest: dict[str, Any]) -> bool:
        try:
            team.apply(manifest)
        except RefusedError:
            return False
        return True

    schema = admin.get("crd", "finetunes.finetune.dev")["spec"]["versions"][0]["schema"]
    current = schema["openAPIV3Schema"]["x-kubernetes-validations"]
    set_rules([rule for rule in current if "bytes" not in rule["message"]])
    try:
        until(lambda: is_accepted(old), 30, lambda: "the rules do not change")
        team.patch_status("finetune", "old", {"state": "running"})
    finally:
        set_rules(current)
    until(lambda: not is_accepted({**new, "status": {"state": "running"}}), 30, lambda: "no rules")
    team("delete", "finetune", "new", "--ignore-not-found")
    with pytest.raises(RefusedError, match=r"spec\.output may have at most 512 bytes"):
        team.apply({**new, "status": {"state": "running"}})
    team.patch_status("finetune", "old", {"state": "pending"})
    team("patch", "finetune", "old", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    team("label", "finetune", "old", "a=b")
    assert team.get("finetune", "old")["spec"]["suspend"] is True
