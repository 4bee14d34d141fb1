"""The requests and limits of the training pods, with and without an estimate."""

from typing import Any

import pytest

from finetune_operator.settings import Settings
from tests.support.objects import World, a_finetune, a_settings

ESTIMATES = {"memory_per_pod_gib": 130.0, "storage_per_pod_gib": 121.5}
GPUS = {"nodes": 1, "gpusPerNode": 8}


def train_job(
    resources: dict[str, Any],
    settings: Settings | None = None,
    estimates: dict[str, float] = ESTIMATES,
    **spec: Any,
) -> dict[str, Any]:
    world = World(a_finetune(resources=resources, **spec), settings).until_training(**estimates)
    found: dict[str, Any] = world.jobs[world.job("a1")]
    return found


def resources_of(*arguments: Any, **spec: Any) -> dict[str, Any]:
    job = train_job(*arguments, **spec)
    found: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    return found


def test_the_estimate_is_requested_and_never_a_limit() -> None:
    gpus = {"nvidia.com/gpu": "8"}
    assert resources_of(GPUS) == {
        "requests": {**gpus, "memory": "133120Mi", "ephemeral-storage": "124416Mi"},
        "limits": gpus,
    }


def test_amounts_of_the_user_are_requests_and_limits() -> None:
    given = {"memory": "64Gi", "ephemeral-storage": "200Gi", "cpu": "8", "nvidia.com/gpu": "8"}
    spec = {**GPUS, "memory": "64Gi", "ephemeralStorage": "200Gi", "cpu": "8"}
    assert resources_of(spec) == {"requests": given, "limits": given}


def test_on_cpu_only_memory_is_requested() -> None:
    """Test clusters such as devcluster's do not report the disk of their nodes."""
    assert resources_of({"gpusPerNode": 0}) == {"requests": {"memory": "133120Mi"}}


def test_without_an_estimate_nothing_is_requested() -> None:
    assert resources_of(GPUS, None, {}) == {
        "requests": {"nvidia.com/gpu": "8"},
        "limits": {"nvidia.com/gpu": "8"},
    }
    assert resources_of({"gpusPerNode": 0}, None, {}) == {}


@pytest.mark.parametrize("allowed", [[], ["memory"], ["ephemeral-storage"]])
def test_an_administrator_chooses_what_is_requested(allowed: list[str]) -> None:
    found = resources_of(GPUS, a_settings(estimatedRequests=allowed))
    assert found["requests"].keys() - {"nvidia.com/gpu"} == set(allowed)


def test_a_queue_is_asked_only_for_resources_that_its_quota_covers() -> None:
    """Kueue never admits a Job that requests a resource without a quota."""
    assert resources_of(GPUS, queueName="gpus")["requests"] == {"nvidia.com/gpu": "8"}
    settings = a_settings(queuedRequests=["memory"])
    found = resources_of(GPUS, settings, queueName="gpus")
    assert found["requests"] == {"nvidia.com/gpu": "8", "memory": "133120Mi"}


def test_the_estimate_stays_in_the_status() -> None:
    world = World(a_finetune(resources=GPUS)).until_training(**ESTIMATES)
    resolved = world.status.to_dict()["resolved"]
    assert (resolved["memoryPerPodGib"], resolved["storagePerPodGib"]) == (130.0, 121.5)


def test_the_data_check_gets_the_amounts_of_the_user_in_gib() -> None:
    spec = {**GPUS, "memory": "512Gi", "ephemeralStorage": "1T"}
    world = World(a_finetune(resources=spec))
    world.settle()
    assert '"memoryGib":512.0,"ephemeralStorageGib":931.3' in world.task()
