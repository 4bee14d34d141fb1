"""The fields of a runtime that the administrator adds to the training pods."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.wire import JsonObject
from finetune_operator.runtimes import Runtime
from tests.support.objects import World, a_finetune, a_settings

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def templates(**runtime: Any) -> tuple[JsonObject, JsonObject]:
    """The pod templates of the prepare and the train Job of a FineTune with 8 GPUs."""
    own = {"name": "nvidia", "trainerImage": "registry/trainer:1", "accelerator": "nvidia"}
    settings = a_settings(runtimes=[own | runtime])
    world = World(a_finetune(resources={"gpusPerNode": 8, "nodes": 2}), settings).until_training()
    prepare, train = (world.jobs[world.job(name)]["spec"]["template"] for name in ("prepare", "a1"))
    return prepare, train


def test_devices_and_the_runtime_class_are_for_training_pods_only() -> None:
    plain, bare = templates()
    devices = {"rdma/hca_shared_devices_a": 1, "hugepages-2Mi": "5Gi"}
    prepare, train = templates(runtimeClassName="nvidia", resources=devices)
    assert prepare == plain
    assert train["spec"]["runtimeClassName"] == "nvidia"
    resources = train["spec"]["containers"][0]["resources"]
    given = {"nvidia.com/gpu": "8", "rdma/hca_shared_devices_a": "1", "hugepages-2Mi": "5Gi"}
    assert resources == {"requests": given, "limits": given}
    assert "runtimeClassName" not in bare["spec"]


def test_an_amount_of_the_spec_takes_precedence_over_that_of_the_runtime() -> None:
    _, train = templates(resources={"nvidia.com/gpu": 1})
    assert train["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "8"}


def test_annotations_and_labels_are_added_and_replace_none_of_the_operator() -> None:
    annotations = {"k8s.v1.cni.cncf.io/networks": "rdma-1,rdma-2"}
    labels = {"team": "vision", "finetune.dev/finetune-uid": "another"}
    _, bare = templates()
    prepare, train = templates(podAnnotations=annotations, podLabels=labels)
    assert train["metadata"]["annotations"] == annotations
    assert train["metadata"]["labels"] == bare["metadata"]["labels"] | {"team": "vision"}
    assert "annotations" not in prepare["metadata"]


def test_the_container_is_restricted_except_for_what_the_administrator_replaces() -> None:
    prepare, train = templates()
    assert train["spec"]["containers"][0]["securityContext"] == RESTRICTED
    locked = {"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}
    prepare, train = templates(securityContext=locked)
    assert train["spec"]["containers"][0]["securityContext"] == RESTRICTED | locked
    assert prepare["spec"]["containers"][0]["securityContext"] == RESTRICTED


def test_a_runtime_that_was_removed_adds_nothing_to_later_attempts() -> None:
    world = World(a_finetune(resources={"gpusPerNode": 8, "nodes": 1})).until_running()
    only = {"name": "cpu", "trainerImage": "registry/trainer:1", "accelerator": "cpu"}
    world.settings = a_settings(runtimes=[only])
    world.end_pod("a1", 0, 1, "boom")
    world.settle()
    pod = world.jobs[world.job("a2")]["spec"]["template"]
    assert "annotations" not in pod["metadata"]


@pytest.mark.parametrize(
    "wrong", [{"runtimeClassName": "No Such"}, {"resources": {"a/b": [1]}}, {"hostNetwork": True}]
)
def test_an_unknown_or_wrong_field_is_refused(wrong: JsonObject) -> None:
    runtime = {"name": "x", "trainerImage": "t", "accelerator": "cpu"}
    with pytest.raises(ValidationError):
        Runtime.model_validate(runtime | wrong)
