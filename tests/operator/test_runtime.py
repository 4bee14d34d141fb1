"""The fields of a runtime that the administrator adds to the training pods."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.wire import JsonObject
from finetune_operator.build.placement import placement
from finetune_operator.runtimes import Runtime
from tests.support.objects import World, a_finetune, a_settings, failed

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
    labels = {"team": "vision"}
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


SPREAD = {
    "maxSkew": 1,
    "topologyKey": "topology.kubernetes.io/zone",
    "whenUnsatisfiable": "ScheduleAnyway",
    "labelSelector": {"matchLabels": {"finetune.dev/component": "train"}},
    "matchLabelKeys": ["finetune.dev/finetune-uid"],
}
ONE_RACK = {
    "labelSelector": {"matchLabels": {"finetune.dev/component": "train"}},
    "matchLabelKeys": ["finetune.dev/finetune-uid"],
    "topologyKey": "example.com/rack",
}
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
IN_A_POOL = {
    "weight": 5,
    "preference": {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["training"]}]},
}
AFFINITY = {
    "nodeAffinity": {PREFERRED: [IN_A_POOL]},
    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [ONE_RACK]},
}


def test_the_placement_of_the_runtime_is_for_training_pods_only() -> None:
    plain, _ = templates()
    prepare, train = templates(
        affinity=AFFINITY, topologySpreadConstraints=[SPREAD], schedulerName="volcano"
    )
    assert prepare == plain
    assert train["spec"]["affinity"] == AFFINITY
    assert train["spec"]["topologySpreadConstraints"] == [SPREAD]
    assert train["spec"]["schedulerName"] == "volcano"


def test_nodes_that_an_attempt_avoids_are_added_to_the_affinity_of_the_runtime() -> None:
    runtime = Runtime.model_validate(
        {"name": "x", "trainerImage": "t", "accelerator": "cpu", "affinity": AFFINITY}
    )
    found = placement(runtime, ["bad"])["affinity"]
    mine, avoiding = found["nodeAffinity"][PREFERRED]
    assert mine == IN_A_POOL
    assert avoiding["preference"]["matchFields"][0]["values"] == ["bad"]
    assert found["podAffinity"] == AFFINITY["podAffinity"]
    assert placement(runtime, []) == {"affinity": AFFINITY}
    assert placement(None, []) == {}


def test_volumes_and_claims_of_the_runtime_are_in_the_training_pods_only() -> None:
    plain, bare = templates()
    volume = {"name": "topology", "hostPath": {"path": "/etc/nccl", "type": "Directory"}}
    mount = {"name": "topology", "mountPath": "/etc/nccl", "readOnly": True}
    claims = [
        {"name": "nic", "resourceClaimTemplateName": "rdma", "request": "one"},
        {"name": "shared", "resourceClaimName": "switch"},
    ]
    prepare, train = templates(volumes=[volume], volumeMounts=[mount], resourceClaims=claims)
    assert prepare == plain
    assert train["spec"]["volumes"] == [*bare["spec"]["volumes"], volume]
    (main,), (other,) = train["spec"]["containers"], bare["spec"]["containers"]
    assert main["volumeMounts"] == [*other["volumeMounts"], mount]
    assert train["spec"]["resourceClaims"] == [
        {"name": "nic", "resourceClaimTemplateName": "rdma"},
        {"name": "shared", "resourceClaimName": "switch"},
    ]
    given = [{"name": "nic", "request": "one"}, {"name": "shared"}]
    assert main["resources"] == other["resources"] | {"claims": given}


DEFAULTS = {"cpu": 16, "memory": "300Gi", "ephemeral-storage": "500Gi", "rdma/hca": 1}


def test_amounts_that_the_finetune_does_not_set_are_those_of_the_runtime() -> None:
    prepare, train = templates(resources=DEFAULTS)
    found = train["spec"]["containers"][0]["resources"]
    given = {name: str(amount) for name, amount in DEFAULTS.items()} | {"nvidia.com/gpu": "8"}
    assert found == {"requests": given, "limits": given}
    task = next(
        item["value"]
        for item in prepare["spec"]["containers"][0]["env"]
        if item["name"] == "FINETUNE_TASK"
    )
    assert '"memoryGib":300.0,"ephemeralStorageGib":500.0' in task


def test_amounts_of_the_finetune_prevail_over_the_estimate_and_those_of_the_runtime() -> None:
    own = {"name": "nvidia", "trainerImage": "registry/trainer:1", "accelerator": "nvidia"}
    settings = a_settings(runtimes=[own | {"resources": {"cpu": 16, "memory": "300Gi"}}])
    spec = {"gpusPerNode": 8, "memory": "64Gi"}
    world = World(a_finetune(resources=spec), settings)
    world.until_training(memory_per_pod_gib=130.0, storage_per_pod_gib=121.5)
    found = world.jobs[world.job("a1")]["spec"]["template"]["spec"]["containers"][0]["resources"]
    limits = {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "8"}
    assert found == {"requests": {**limits, "ephemeral-storage": "124416Mi"}, "limits": limits}


def test_a_limit_of_the_runtime_counts_like_one_of_the_finetune_when_memory_runs_out() -> None:
    own = {"name": "nvidia", "trainerImage": "registry/trainer:1", "accelerator": "nvidia"}
    settings = a_settings(runtimes=[own | {"resources": {"memory": "64Gi"}}])
    world = World(a_finetune(resources={"nodes": 1, "gpusPerNode": 8}, maxRestarts=0), settings)
    world.until_running(memory_per_pod_gib=130.0)
    failure = failed("OutOfMemory", exhausted_memory="host")
    world.end_pod("a1", 0, 1, failure)
    world.settle()
    assert world.status.state == "failed"
    assert "64Gi" in world.status.error.hint


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"runtimeClassName": "No Such"}, "runtimeClassName"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"resources": {"a/b": [1]}}, "resources"),
        ({"resources": {"rdma": 1}}, "'rdma' is not a resource"),
        ({"resources": {"rdma/hca": "half"}}, "'half' is not a quantity"),
        ({"resources": {"rdma/hca": "500m"}}, "not a whole number of devices"),
        ({"schedulerName": "Volcano!"}, "schedulerName"),
        ({"env": {"FINETUNE_TASK": "{}"}}, "the operator's own"),
        ({"env": {"finetune_local_root": "/"}}, "the operator's own"),
        ({"env": {"A=B": "1"}}, "not the name of an environment variable"),
        ({"podLabels": {"finetune.dev/finetune-uid": "x"}}, "set by the operator"),
        ({"podLabels": {"app.kubernetes.io/managed-by": "x"}}, "set by the operator"),
        ({"podLabels": {"batch.kubernetes.io/job-name": "x"}}, "or by Kubernetes"),
        ({"podLabels": {"team": "two words"}}, "not the value of a label"),
        ({"podLabels": {"a/b/c": "x"}}, "is not a key"),
        ({"podAnnotations": {"-x": "x"}}, "is not a key"),
        ({"podAnnotations": {"finetune.dev/model": "x"}}, "set by the operator"),
        ({"podAnnotations": {"big": "x" * 300_000}}, "262144"),
        ({"securityContext": {"runAsRoot": True}}, "'runAsRoot' is not a field"),
        ({"affinity": {"nodeAffinty": {}}}, "nodeAffinty"),
        ({"affinity": {"podAffinity": {PREFERRED: [{"weight": 0}]}}}, "weight"),
        (
            {"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 1, "preference": {
                "matchExpressions": [{"key": "a", "operator": "In"}]}}]}}},
            "a: operator In needs values",
        ),
        (
            {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "matchLabelKeys": ["a"]}]}}},
            "matchLabelKeys needs a labelSelector",
        ),
        ({"topologySpreadConstraints": [SPREAD | {"maxSkew": 0}]}, "maxSkew"),
        ({"topologySpreadConstraints": [SPREAD | {"whenUnsatisfiable": "Never"}]}, "DoNotSchedule"),
        ({"topologySpreadConstraints": [SPREAD | {"minDomains": 2}]}, "minDomains needs"),
        ({"resourceClaims": [{"name": "nic"}]}, "set exactly one of resourceClaimName"),
        (
            {"resourceClaims": [{"name": "nic", "resourceClaimName": "a"}] * 2},
            "the name 'nic' is used twice",
        ),
        ({"volumes": [{"name": "work", "emptyDir": {}}]}, "the operator's own volumes"),
        ({"volumes": [{"name": "shm", "emptyDir": {}}]}, "the operator's own volumes"),
        ({"volumes": [{"name": "finetune-x", "emptyDir": {}}]}, "the operator's own volumes"),
        ({"volumes": [{"name": "a"}]}, "set exactly one source"),
        ({"volumes": [{"name": "a", "hostpath": {"path": "/x"}}]}, "has hostpath"),
        ({"volumes": [{"name": "a", "hostPath": "/x"}]}, "hostPath is not an object"),
        ({"volumes": [{"name": "a", "emptyDir": {}}] * 2}, "the name 'a' is used twice"),
        ({"volumeMounts": [{"name": "a", "mountPath": "/a"}]}, "not among the volumes"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_with_a_sentence(wrong: JsonObject, words: str) -> None:
    runtime = {"name": "x", "trainerImage": "t", "accelerator": "cpu"}
    with pytest.raises(ValidationError) as caught:
        Runtime.model_validate(runtime | wrong)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["/tmp", "/tmp/", "//tmp/x", "/tmp/./y", "/dev/shm", "/var/cache/finetune/x", "/app", "/opt",
     "/opt/venv/lib", "/", "/dev/termination-log", "tmp", "/a/../tmp", "/a:b", ""],
)  # fmt: skip
def test_a_mount_hides_nothing_that_the_pods_need(path: str) -> None:
    volume = {"name": "a", "emptyDir": {}}
    mount = {"name": "a", "mountPath": path}
    runtime = {"name": "x", "trainerImage": "t", "accelerator": "cpu", "volumes": [volume]}
    with pytest.raises(ValidationError, match="mountPath"):
        Runtime.model_validate(runtime | {"volumeMounts": [mount]})


def test_mounts_beside_those_paths_are_free_and_each_is_used_once() -> None:
    runtime = {"name": "x", "trainerImage": "t", "accelerator": "cpu"}
    runtime["volumes"] = [{"name": "a", "emptyDir": {}}]  # type: ignore[assignment]
    paths = ["/opt/amazon", "/tmpfs", "/dev/infiniband", "/application", "/etc/nccl/"]
    mounts = [{"name": "a", "mountPath": path} for path in paths]
    assert len(Runtime.model_validate(runtime | {"volumeMounts": mounts}).volume_mounts) == 5
    mounts.append({"name": "a", "mountPath": "/etc/nccl"})
    with pytest.raises(ValidationError, match="'/etc/nccl' is used twice"):
        Runtime.model_validate(runtime | {"volumeMounts": mounts})
