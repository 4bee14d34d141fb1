"""Labels and annotations with which other schedulers place all pods of an attempt or none."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.wire import JsonObject
from tests.support.objects import World, a_finetune, a_settings


def runtime(**fields: Any) -> JsonObject:
    base = {"name": "cpu", "trainerImage": "registry/trainer:1", "accelerator": "cpu"}
    return base | fields


LABELS = {
    "pod-group.scheduling.sigs.k8s.io/name": "{group}",
    "pod-group.scheduling.sigs.k8s.io/min-available": "{pods}",
    "team": "ml",
}
TASK_GROUPS = '[{"name": "train", "minMember": {pods}}]'


def template(world: World, ending: str) -> JsonObject:
    metadata: JsonObject = world.jobs[world.job(ending)]["spec"]["template"]["metadata"]
    return metadata


def test_a_group_is_an_attempt_with_all_of_its_pods() -> None:
    annotations = {"yunikorn.apache.org/task-groups": TASK_GROUPS}
    chart = a_settings(runtimes=[runtime(podLabels=LABELS, podAnnotations=annotations)])
    world = World(a_finetune(resources={"nodes": 3, "gpusPerNode": 0}), chart)
    world.settle()
    prepare = template(world, "-prepare")
    assert not prepare["labels"].keys() & LABELS.keys()
    world.until_training()
    first = world.job("-a1")
    found = template(world, "-a1")
    assert {key: found["labels"][key] for key in LABELS} == {
        "pod-group.scheduling.sigs.k8s.io/name": first,
        "pod-group.scheduling.sigs.k8s.io/min-available": "3",
        "team": "ml",
    }
    notes = found["annotations"]["yunikorn.apache.org/task-groups"]
    assert notes == '[{"name": "train", "minMember": 3}]'

    world.end_pod("-a1", 0, 1, "boom")
    world.settle()
    second = world.job("-a2")
    labels = template(world, "-a2")["labels"]
    assert labels["pod-group.scheduling.sigs.k8s.io/name"] == second != first


def test_the_name_of_a_group_fits_into_a_label() -> None:
    chart = a_settings(runtimes=[runtime(podLabels={"group": "{group}"})])
    finetune = a_finetune()
    meta = finetune.metadata.replace(name="x" * 63)
    world = World(finetune.replace(metadata=meta), chart).until_training()
    assert len(template(world, "-a1")["labels"]["group"]) <= 63


@pytest.mark.parametrize("value", ["{name}", "{group}-{group}", "a b", "{pods}{", "{group}-x"])
def test_any_other_value_that_is_no_label_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="label 'group'"):
        a_settings(runtimes=[runtime(podLabels={"group": value})])


def test_the_pods_of_the_whole_product_have_no_group() -> None:
    with pytest.raises(ValidationError, match="label 'group'"):
        a_settings(pods={"labels": {"group": "{group}"}})
