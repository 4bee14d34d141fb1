"""Parts that administrators and users add to pods, and assigned user IDs, on a real API server."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.names import Reason
from finetune_api.quantities import parse_quantity
from finetune_api.wire import JsonObject
from finetune_operator.build.deletion_job import build_deletion_job
from finetune_operator.build.lookup_job import build_lookup_job
from tests.integration.conftest import CHART, Operator
from tests.integration.test_operator import TWO_NODES
from tests.operator.test_deletion import a_model
from tests.operator.test_runtime import AFFINITY, SPREAD
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.objects import World, a_finetune, a_settings
from tests.support.user_ids import MESSAGE, refuse_fixed_ids

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RUNTIME: dict[str, Any] = {
    "name": "nvidia",
    "trainerImage": "registry/trainer:1",
    "accelerator": "nvidia",
    "env": {"NCCL_DEBUG": "WARN"},
    "runtimeClassName": "nvidia",
    "schedulerName": "volcano",
    "affinity": AFFINITY,
    "topologySpreadConstraints": [SPREAD],
    "resources": {"cpu": 8, "memory": "64Gi", "ephemeral-storage": "1Ti", "rdma/hca": 1},
    "resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "rdma", "request": "one"}],
    "volumes": [
        {"name": "topology", "hostPath": {"path": "/etc/nccl", "type": "Directory"}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
    ],
    "volumeMounts": [
        {"name": "topology", "mountPath": "/etc/nccl", "readOnly": True},
        {"name": "shared", "mountPath": "/shared", "subPath": "a", "mountPropagation": "None"},
    ],
    "podAnnotations": {"k8s.v1.cni.cncf.io/networks": "rdma"},
    "podLabels": {"team": "vision"},
    "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}},
    "modelCache": {"emptyDir": {"sizeLimit": "10Gi"}},
}
PODS: dict[str, Any] = {
    "env": {"A": "1"},
    "labels": {"cost": "ml"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "allowedLabelPrefixes": ["acme.com/"],
    "allowedAnnotationPrefixes": ["acme.com/"],
}
ADDED = {"podLabels": {"acme.com/team": "a"}, "podAnnotations": {"acme.com/note": "b"}}


def jobs(team: Kubectl, **settings: Any) -> list[JsonObject]:
    """All kinds of Jobs of the product, for the namespace of the test."""
    given = a_settings(runtimes=[RUNTIME], pods=PODS, **settings)
    world = World(a_finetune(resources={"nodes": 2, "gpusPerNode": 8}, **ADDED), given)
    world.until_training(memory_per_pod_gib=30.0, storage_per_pod_gib=12.0)
    made = [job for job in world.created if job["kind"] == "Job"]
    made.append(build_lookup_job(world.finetune, world.status.resolved, given))
    made.append(build_deletion_job(a_model("Delete"), given))
    for job in made:
        job["metadata"]["namespace"] = team.namespace
    return made


def dry_run(team: Kubectl, manifest: JsonObject) -> JsonObject:
    """The object as the API server would store it."""
    text = yaml.safe_dump(manifest)
    found: JsonObject = json.loads(
        team("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
    )
    return found


def missing(wanted: Any, found: Any, where: str = "") -> list[str]:
    """The paths in `wanted` whose values are others in `found`, which may have more fields."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            path
            for key, value in wanted.items()
            for path in missing(value, found.get(key), f"{where}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            path
            for index, pair in enumerate(zip(wanted, found, strict=True))
            for path in missing(*pair, f"{where}[{index}]")
        ]
    return [] if wanted == found or is_same_amount(wanted, found) else [where]


def is_same_amount(one: Any, other: Any) -> bool:
    """Whether both are quantities, such as 1024Mi and 1Gi, and equal."""
    try:
        return parse_quantity(one) == parse_quantity(other)
    except (TypeError, ValueError):
        return False


def test_the_api_server_keeps_every_part_of_the_pods(team: Kubectl) -> None:
    for job in jobs(team):
        stored = dry_run(team, job)
        assert missing(job["spec"]["template"], stored["spec"]["template"]) == []
        pod = {"apiVersion": "v1", "kind": "Pod", **job["spec"]["template"]}
        pod["metadata"] = {**pod["metadata"], "name": "probe", "namespace": team.namespace}
        if pod["spec"].get("runtimeClassName") is None:
            assert missing(pod["spec"], dry_run(team, pod)["spec"]) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"podLabels": {"k" * 318: "a"}}, "at most 317 characters"),
        ({"podAnnotations": {"k" * 318: "a"}}, "at most 317 characters"),
        ({"podLabels": {f"a{index}": "a" for index in range(33)}}, "at most 32"),
        ({"podLabels": {"a": "two words"}}, "spec.podLabels.a"),
        ({"podLabels": {"a": "x" * 64}}, "spec.podLabels.a"),
        ({"podAnnotations": {"a": "x" * 4097}}, "spec.podAnnotations.a"),
    ],
)
def test_the_crd_bounds_what_users_add(team: Kubectl, spec: JsonObject, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        dry_run(team, finetune("tone", **spec))
    assert words in str(caught.value)


def test_what_users_add_cannot_be_changed(team: Kubectl) -> None:
    team.apply(finetune("tone", **ADDED))
    with pytest.raises(RefusedError, match="podLabels cannot be changed once created"):
        team.apply(finetune("tone", **(ADDED | {"podLabels": {"acme.com/team": "b"}})))


@pytest.fixture
def assigning(admin: Kubectl, team: Kubectl) -> Iterator[Kubectl]:
    """The namespace of the test, in which no object may choose the IDs of its pods."""
    policy, binding = refuse_fixed_ids(team.namespace, "pods", "jobs", "deployments")
    admin.apply(policy, binding)
    probe = {"containers": [{"name": "a", "image": "a"}], "securityContext": {"runAsUser": 1}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": probe}
    until(lambda: is_refused(team, pod), 30)
    yield team
    for kind in ("binding", ""):
        admin("delete", f"validatingadmissionpolicy{kind}", policy["metadata"]["name"])


def is_refused(team: Kubectl, manifest: JsonObject) -> bool:
    try:
        dry_run(team, manifest)
    except RefusedError as error:
        return MESSAGE in str(error)
    return False


def deployment(helm: Path, team: Kubectl, *values: str) -> JsonObject:
    sets = [word for value in values for word in ("--set", value)]
    text = subprocess.run(
        [helm, "template", "ft", CHART, "-n", team.namespace, "-s", "templates/deployment.yaml",
         *sets],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found: JsonObject = yaml.safe_load(text)
    return found


def test_a_cluster_that_assigns_ids_refuses_fixed_ones_and_no_object_without(
    assigning: Kubectl, tools: Path
) -> None:
    values = "clusterAssignsUserIds=true"
    fixed = [*jobs(assigning), deployment(tools / "helm", assigning)]
    free = [
        *jobs(assigning, clusterAssignsUserIds=True),
        deployment(tools / "helm", assigning, values),
    ]
    assert [is_refused(assigning, each) for each in fixed] == [True] * 5
    assert [is_refused(assigning, each) for each in free] == [False] * 5


def test_without_the_setting_the_status_says_what_refuses_the_pods(
    assigning: Kubectl, killed_operator: Operator
) -> None:
    assigning.apply(finetune("tone", **TWO_NODES))
    until(lambda: assigning.status("tone").get("reason") == Reason.POLICY_DENIED, 40)
    assert MESSAGE in assigning.status("tone")["message"]
