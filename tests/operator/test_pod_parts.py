"""What the chart and the user add to all pods of the product, and the IDs that it leaves out."""

import json
from itertools import product
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from finetune_api.names import Reason
from finetune_api.wire import JsonObject
from finetune_operator.build.deletion_job import build_deletion_job
from finetune_operator.build.lookup_job import build_lookup_job
from finetune_operator.keys import is_allowed
from finetune_operator.pod_fields import OWN_VOLUMES
from finetune_operator.settings import Settings
from finetune_web.settings_file import load_settings
from tests.operator.test_deletion import a_model
from tests.support.objects import World, a_finetune, a_settings

GPUS = {"nodes": 1, "gpusPerNode": 8}
ALLOWED = {"allowedLabelPrefixes": ["acme.com/"], "allowedAnnotationPrefixes": ["acme.com/"]}


def templates(settings: Settings, **spec: Any) -> dict[str, JsonObject]:
    """The pod templates of all Jobs of the product, by their component."""
    world = World(a_finetune(**({"resources": GPUS} | spec)), settings).until_training()
    assert world.status.resolved is not None, world.status.error
    jobs = [
        *(made for made in world.created if made["kind"] == "Job"),
        build_lookup_job(world.finetune, world.status.resolved, settings),
        build_deletion_job(a_model("Delete"), settings),
    ]
    found = {
        job["metadata"]["labels"]["finetune.dev/component"]: job["spec"]["template"] for job in jobs
    }
    assert found.keys() == {"prepare", "train", "lookup", "deletion"}
    return found


def containers(template: JsonObject) -> list[JsonObject]:
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def variables(container: JsonObject) -> dict[str, str]:
    names = [item["name"] for item in container["env"]]
    assert len(names) == len(set(names))
    return {item["name"]: item.get("value", "") for item in container["env"]}


def test_the_environment_of_the_chart_is_in_every_container() -> None:
    env = {"HTTPS_PROXY": "http://proxy:3128", "NCCL_DEBUG": "WARN"}
    for template in templates(a_settings(pods={"env": env})).values():
        for container in containers(template):
            assert env.items() <= variables(container).items()
            assert "FINETUNE_TASK" in variables(container)


def test_a_runtime_prevails_over_the_environment_of_the_chart() -> None:
    runtime = {"name": "x", "trainerImage": "t", "accelerator": "nvidia"}
    runtime |= {"env": {"NCCL_DEBUG": "INFO"}}  # type: ignore[dict-item]
    settings = a_settings(runtimes=[runtime], pods={"env": {"NCCL_DEBUG": "WARN"}})
    found = templates(settings)
    assert variables(containers(found["train"])[0])["NCCL_DEBUG"] == "INFO"
    check, prepare = containers(found["prepare"])
    assert variables(check)["NCCL_DEBUG"] == "INFO"
    assert variables(prepare)["NCCL_DEBUG"] == "WARN"


def test_labels_and_annotations_of_the_chart_are_on_every_pod() -> None:
    pods = {"labels": {"cost": "ml"}, "annotations": {"sidecar.istio.io/inject": "false"}}
    bare = templates(a_settings())
    for component, template in templates(a_settings(pods=pods)).items():
        own = bare[component]["metadata"]
        assert template["metadata"]["labels"] == own["labels"] | pods["labels"]
        assert pods["annotations"].items() <= template["metadata"]["annotations"].items()
        assert template["spec"] == bare[component]["spec"]


def test_labels_and_annotations_of_the_user_are_on_every_pod_of_the_finetune() -> None:
    spec = {"podLabels": {"acme.com/team": "vision"}, "podAnnotations": {"acme.com/note": "é\n"}}
    settings, bare = a_settings(pods=ALLOWED), templates(a_settings())
    for component, template in templates(settings, **spec).items():
        own = bare[component]["metadata"]
        if component == "deletion":
            assert template["metadata"] == own
            continue
        assert template["metadata"]["labels"] == own["labels"] | spec["podLabels"]
        assert template["metadata"]["annotations"] == spec["podAnnotations"]


def test_a_prefix_that_the_chart_no_longer_allows_is_left_out_of_later_pods() -> None:
    world = World(a_finetune(podLabels={"acme.com/team": "a"}), a_settings(pods=ALLOWED))
    world.until_running()
    world.settings = a_settings()
    world.end_pod("a1", 0, 1, "boom")
    world.settle()
    first, second = (world.jobs.get(world.job(name)) for name in ("prepare", "a2"))
    assert first is not None and second is not None
    labels = [job["spec"]["template"]["metadata"]["labels"] for job in (first, second)]
    assert ["acme.com/team" in each for each in labels] == [True, False]


@pytest.mark.parametrize(
    ("key", "prefixes", "expected"),
    [
        ("acme.com/team", [], False),
        ("acme.com/team", ["acme.com/"], True),
        ("acme.com/team", ["acme.com"], True),
        ("acme.com/team", ["acme.com/te"], True),
        ("acme.com/team", ["acme.com/x"], False),
        ("acme.com.evil.io/team", ["acme.com"], False),
        ("acme.com.evil.io/team", ["acme.com/"], False),
        ("x.acme.com/team", ["acme.com/"], False),
        ("team", ["team"], True),
        ("team-a", ["team"], True),
        ("a-team", ["team"], False),
        ("team/a", ["team"], True),
        ("teams/a", ["team"], False),
        ("a", [""], False),
        ("pod-security.kubernetes.io/enforce", ["kubernetes.io/"], False),
        ("topology.kubernetes.io/zone", ["topology.kubernetes.io/"], True),
    ],
)
def test_a_prefix_is_a_whole_domain_or_a_beginning(
    key: str, prefixes: list[str], expected: bool
) -> None:
    assert is_allowed(key, prefixes) is expected


FIELDS = {"podLabels": "allowedLabelPrefixes", "podAnnotations": "allowedAnnotationPrefixes"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("team", "a", "key 'team' is not allowed: the chart allows acme.com/, finetune.dev/, "),
        ("finetune.dev/finetune-uid", "a", "'finetune.dev/finetune-uid' is set by the operator"),
        ("batch.kubernetes.io/job-name", "a", "'batch.kubernetes.io/job-name' is set by"),
        ("acme.com/", "a", "'acme.com/' is not a key"),
        ("acme.com/chart", "a", "'acme.com/chart' is set by the chart"),
        ("acme.com/runtime", "a", "'acme.com/runtime' is set by the chart"),
    ],
)
@pytest.mark.parametrize("field", FIELDS)
def test_a_key_that_the_pods_cannot_have_is_refused(
    field: str, key: str, value: str, words: str
) -> None:
    allowed = ["acme.com/", "finetune.dev/", "batch.kubernetes.io/"]
    given = field.removeprefix("pod").lower()
    runtime = {"name": "nvidia", "trainerImage": "t", "accelerator": "nvidia"}
    settings = a_settings(
        runtimes=[runtime | {field: {"acme.com/runtime": "x"}}],
        pods={FIELDS[field]: allowed, given: {"acme.com/chart": "x"}},
    )
    world = World(a_finetune(resources=GPUS, **{field: {key: value}}), settings)
    world.settle()
    error = world.status.error
    assert (world.status.state, error.code, error.param) == ("failed", Reason.INVALID_SPEC, field)
    assert error.message.startswith(f"spec.{field}: ")
    assert words in error.message
    assert not world.created


def test_without_allowed_prefixes_the_error_says_what_to_change() -> None:
    world = World(a_finetune(podAnnotations={"sidecar.istio.io/inject": "false"}))
    world.settle()
    assert world.status.error.message == (
        "spec.podAnnotations: key 'sidecar.istio.io/inject' is not allowed: the chart allows no key"
    )
    assert world.status.error.hint == (
        "remove it, or ask an administrator to add its prefix to the chart value "
        "pods.allowedAnnotationPrefixes"
    )


def test_a_cluster_that_assigns_ids_finds_none_in_any_pod() -> None:
    fixed = templates(a_settings())
    for component, template in templates(a_settings(clusterAssignsUserIds=True)).items():
        security = template["spec"]["securityContext"]
        assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        text = json.dumps(template)
        assert not any(word in text for word in ("runAsUser", "runAsGroup", "fsGroup"))
        ids = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 65532)
        assert fixed[component]["spec"]["securityContext"] == {**security, **ids}


def test_every_volume_for_temporary_files_is_bounded_or_counted() -> None:
    for resources, estimate in product((GPUS, {"nodes": 1, "gpusPerNode": 0}), (121.5, 0.01)):
        world = World(a_finetune(resources=resources))
        world.until_training(storage_per_pod_gib=estimate)
        for job in (made for made in world.created if made["kind"] == "Job"):
            spec = job["spec"]["template"]["spec"]
            (work,) = [volume for volume in spec["volumes"] if volume["name"] == "work"]
            requests = spec["containers"][0]["resources"].get("requests", {})
            assert "sizeLimit" in work["emptyDir"] or "ephemeral-storage" in requests
    for template in templates(a_settings()).values():
        for volume in template["spec"]["volumes"]:
            assert volume["name"] in OWN_VOLUMES


def test_the_prepare_pod_requests_disk_under_the_conditions_of_the_training_pods() -> None:
    def requested(settings: Settings, **spec: Any) -> list[str | None]:
        world = World(a_finetune(**spec), settings)
        world.settle()
        template = world.jobs[world.job("prepare")]["spec"]["template"]
        return [
            container["resources"]["requests"].get("ephemeral-storage")
            for container in containers(template)
        ]

    assert requested(a_settings(), resources=GPUS) == ["1024Mi", "2374Mi"]
    assert requested(a_settings(), resources={"gpusPerNode": 0}) == [None, None]
    assert requested(a_settings(estimatedRequests=[]), resources=GPUS) == [None, None]
    assert requested(a_settings(), resources=GPUS, queueName="q") == [None, None]
    queued = a_settings(queuedRequests=["ephemeral-storage"])
    assert requested(queued, resources=GPUS, queueName="q") == ["1024Mi", "2374Mi"]
    fixed = a_settings(prepareResources={"cpu": "1", "memory": "2Gi", "ephemeralStorage": "9Gi"})
    assert requested(fixed, resources={"gpusPerNode": 0}) == [None, "9Gi"]


def test_more_files_and_repeats_need_more_disk() -> None:
    def limit(**spec: Any) -> int:
        world = World(a_finetune(**spec))
        world.settle()
        volumes = world.jobs[world.job("prepare")]["spec"]["template"]["spec"]["volumes"]
        return int(volumes[0]["emptyDir"]["sizeLimit"].removesuffix("Mi"))

    def files(**more: float) -> list[JsonObject]:
        return [{"uri": f"s3://bucket/{index}.jsonl", **more} for index in range(3)]

    one = limit()
    two = limit(validationFile="s3://bucket/valid.jsonl")
    three = limit(trainingFile=None, trainingFiles=files())
    weighted = limit(trainingFile=None, trainingFiles=files(weight=1.0))
    assert one < two < three < weighted


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"env": {"FINETUNE_TASK": "x"}}, "pods.env: 'FINETUNE_TASK'"),
        ({"labels": {"finetune.dev/component": "x"}}, "pods.labels: 'finetune.dev/component'"),
        ({"annotations": {"a b": "x"}}, "pods.annotations: 'a b' is not a key"),
        ({"allowedLabelPrefixes": [""]}, "pods.allowedLabelPrefixes.0: "),
        ({"allowedAnnotationPrefixes": ["*"]}, "pods.allowedAnnotationPrefixes.0: "),
        ({"lables": {}}, "pods.lables: the field is unknown"),
    ],
)
def test_the_operator_does_not_start_with_wrong_settings(
    wrong: JsonObject, where: str, tmp_path: Any
) -> None:
    given = a_settings().model_dump(mode="json", by_alias=True, exclude_unset=True)
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(given | {"pods": wrong}))
    with pytest.raises(ValueError, match="settings file") as caught:
        load_settings(path, Settings)
    assert f"settings file {path}, {where}" in str(caught.value)
    assert not isinstance(caught.value, ValidationError)
