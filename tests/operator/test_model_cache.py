"""The volume of the training pods that keeps base models, from the settings to the manifest."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.quantities import quantity_bytes
from finetune_api.tasks import ModelCacheRef, PrepareTask, TrainTask
from finetune_api.wire import JsonObject
from tests.support.objects import World, a_settings

CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}


def pods(cache: JsonObject | None) -> dict[str, JsonObject]:
    """The pod specs of a FineTune by the component of their Job."""
    runtime = {"name": "cpu", "trainerImage": "registry/trainer:1", "accelerator": "cpu"}
    runtime |= {"modelCache": cache} if cache is not None else {}
    world = World(settings=a_settings(runtimes=[runtime])).until_training()
    return {
        manifest["metadata"]["labels"]["finetune.dev/component"]: (
            manifest["spec"]["template"]["spec"]
        )
        for manifest in world.created
        if manifest["kind"] == "Job"
    }


def task_of(pod: JsonObject) -> TrainTask:
    (variable,) = [item for item in pod["containers"][0]["env"] if item["name"] == "FINETUNE_TASK"]
    return TrainTask.model_validate_json(variable["value"])


@pytest.mark.parametrize(
    ("cache", "source", "limit", "free"),
    [
        (CLAIM, CLAIM, None, 0),
        ({**CLAIM, "maxSize": "500Gi"}, CLAIM, 500 * 2**30, 0),
        (
            {"hostPath": {"path": "/var/lib/models"}},
            {"hostPath": {"path": "/var/lib/models", "type": "DirectoryOrCreate"}},
            None,
            0.2,
        ),
        (
            {"hostPath": {"path": "/var/lib/models"}, "maxSize": "1Ti"},
            {"hostPath": {"path": "/var/lib/models", "type": "DirectoryOrCreate"}},
            2**40,
            0,
        ),
        ({"emptyDir": {}}, {"emptyDir": {}}, None, 0),
        (
            {"emptyDir": {"medium": "Memory", "sizeLimit": "20G"}},
            {"emptyDir": {"medium": "Memory", "sizeLimit": "20G"}},
            20 * 10**9,
            0,
        ),
    ],
)
def test_training_pods_mount_the_cache_and_know_its_path(
    cache: JsonObject, source: JsonObject, limit: int | None, free: float
) -> None:
    pod = pods(cache)["train"]
    assert {"name": "model-cache", **source} in pod["volumes"]
    (mount,) = [
        mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "model-cache"
    ]
    assert mount == {"name": "model-cache", "mountPath": "/var/cache/finetune"}
    assert task_of(pod).model_cache == ModelCacheRef(
        path=mount["mountPath"], max_bytes=limit, free_share=free
    )


@pytest.mark.parametrize(("cache", "is_shared"), [(CLAIM, True), ({"emptyDir": {}}, False)])
def test_the_prepare_pod_downloads_small_files_and_has_no_cache(
    cache: JsonObject, is_shared: bool
) -> None:
    """It only knows whether the base model counts in the disk of the training pods."""
    pod, plain = pods(cache)["prepare"], pods(None)["prepare"]
    assert pod["volumes"] == plain["volumes"]
    workers = [
        PrepareTask.model_validate_json(one["containers"][0]["env"][0]["value"]).workers
        for one in (pod, plain)
    ]
    assert workers[0] == workers[1].replace(has_model_cache=is_shared or None)


def test_without_a_cache_the_pod_is_that_of_the_previous_version() -> None:
    pod = pods(None)["train"]
    assert [volume["name"] for volume in pod["volumes"]] == ["work", "shm"]
    assert "modelCache" not in task_of(pod).to_dict()


def test_the_trainer_of_the_previous_version_ignores_the_cache() -> None:
    task = task_of(pods(CLAIM)["train"])

    class Previous(TrainTask):
        """Without the field."""

    Previous.model_fields.pop("model_cache")
    Previous.model_rebuild(force=True)
    found = Previous.model_validate_json(task.to_json())
    assert found.dataset == task.dataset
    assert not hasattr(found, "model_cache")


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({}, "set exactly one of"),
        ({**CLAIM, "emptyDir": {}}, "set exactly one of"),
        ({"emptyDir": {}, "maxSize": "1Gi"}, "sizeLimit instead of a maxSize"),
        ({"hostPath": {"path": "models"}}, "path"),
        ({"hostPath": {"path": "/"}}, "path"),
        ({"hostPath": {"path": "/data/../etc"}}, "path"),
        ({"persistentVolumeClaim": {"claimName": "Models"}}, "claimName"),
        ({**CLAIM, "maxSize": "much"}, "maxSize"),
        ({"nfs": {"server": "a", "path": "/b"}}, "nfs"),
    ],
)
def test_a_wrong_cache_is_refused_by_name(cache: JsonObject, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        pods(cache)


@pytest.mark.parametrize(
    ("text", "size"),
    [("500Gi", 500 * 2**30), ("1.5G", 1_500_000_000), ("1Ki", 1024), ("7.1", 8), ("100m", 1)],
)
def test_a_quantity_is_a_number_of_bytes(text: str, size: int) -> None:
    assert quantity_bytes(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1GiB", "1X", "nan", "Infinity"])
def test_other_texts_are_no_quantities(text: Any) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity_bytes(text)
