"""PodGroups of Kubernetes' own scheduler, where the cluster serves them."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.build.pod_group import build_pod_group, needs_group
from finetune_operator.build.train_job import job_reference
from finetune_operator.core.decide import decide
from finetune_operator.core.plan import Create, CreateService
from finetune_operator.runtimes import Runtime
from tests.support.objects import World, a_finetune, a_settings

CPU = {"name": "cpu", "trainerImage": "registry/trainer:1", "accelerator": "cpu"}


@pytest.mark.parametrize(
    ("spec", "runtime", "needs"),
    [
        ({}, {}, True),
        ({"resources": {"nodes": 1, "gpusPerNode": 0}}, {}, False),
        ({"queueName": "gpus"}, {}, False),
        ({}, {"schedulerName": "volcano"}, False),
        ({}, {"schedulerName": "default-scheduler"}, True),
    ],
)
def test_the_default_scheduler_gets_groups_of_several_pods_without_a_queue(
    spec: dict[str, Any], runtime: dict[str, Any], needs: bool
) -> None:
    assert needs_group(a_finetune(**spec), Runtime.model_validate(CPU | runtime)) is needs
    world = World(a_finetune(**spec), a_settings(runtimes=[CPU | runtime]))
    world.settle()
    world.until_training()
    for version in ("", "v1alpha2"):
        observed = replace(world.observe(), group_version=version)
        without = replace(observed, jobs=tuple(job for job in observed.jobs if not job.attempt))
        status = world.status.replace(attempts=[])
        before = replace(without, finetune=world.finetune.replace(status=status))
        plan = decide(before, world.settings, world.now)
        (job,) = (item.manifest for item in plan.actions_of(Create) if isinstance(item, Create))
        (service,) = plan.actions_of(CreateService)
        assert isinstance(service, CreateService)
        group = job["spec"]["template"]["spec"].get("schedulingGroup")
        is_grouped = needs and bool(version)
        assert group == ({"podGroupName": job["metadata"]["name"]} if is_grouped else None)
        assert service.group_version == (version if is_grouped else "")


def test_the_job_owns_the_group_of_its_pods() -> None:
    finetune = a_finetune(resources={"nodes": 3, "gpusPerNode": 0})
    owner = job_reference("ft-tone-a2", "uid-of-the-job")
    made = build_pod_group(finetune, 2, owner, "v1beta1")
    assert made["apiVersion"] == "scheduling.k8s.io/v1beta1"
    assert made["spec"] == {"schedulingPolicy": {"gang": {"minCount": 3}}}
    assert made["metadata"]["ownerReferences"] == [owner]
    assert made["metadata"]["name"].endswith("-a2")


def test_an_operator_that_died_before_the_service_creates_the_group_as_well() -> None:
    world = World().until_training()
    world.services.clear()
    name = world.job("-a1")
    for is_grouped, version in ((True, "v1alpha2"), (False, "")):
        spec = world.jobs[name]["spec"]["template"]["spec"]
        if is_grouped:
            spec["schedulingGroup"] = {"podGroupName": name}
        else:
            del spec["schedulingGroup"]
        observed = replace(world.observe(), group_version="v1alpha2")
        plan = decide(observed, world.settings, world.now)
        assert CreateService(1, name, version) in plan.actions
