"""Containers that admission webhooks inject: before ours or after them, waiting or failed."""

from typing import Any

import pytest

from finetune_api import names
from finetune_api.names import Reason
from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.core.observed import Job, KubeletEvent, Pod
from finetune_operator.core.pending import explain
from finetune_operator.core.verdict import judge
from tests.support.objects import World, failed, prepared, trained

RUNNING: JsonObject = {"running": {"startedAt": "2026-11-21T12:00:00Z"}}
INITIALIZING: JsonObject = {"waiting": {"reason": "PodInitializing"}}
CREATING: JsonObject = {"waiting": {"reason": "ContainerCreating"}}
CRASHED: JsonObject = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no vault"}}
DONE: JsonObject = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def waits(reason: str, message: str = "as the kubelet says") -> JsonObject:
    return {"waiting": {"reason": reason, "message": message}}


def container(name: str, state: JsonObject, **more: Any) -> JsonObject:
    return {"name": name, "state": state, "ready": state is RUNNING, **more}


def a_status(
    inits: list[JsonObject], others: list[JsonObject], phase: str = "Pending"
) -> JsonObject:
    return {"phase": phase, "initContainerStatuses": inits, "containerStatuses": others}


def job_of(world: World, ending: str, **status: Any) -> Job:
    """The Job with this ending, its first pod with this status."""
    name = world.job(ending)
    world.pods[name][0]["status"] = status
    return Job.parse(world.jobs[name], world.pods[name])


PENDING: dict[str, tuple[JsonObject, messages.StatusMessage]] = {
    "the image of an init container": (
        a_status(
            [container("istio-init", waits("ErrImagePull"))], [container("main", INITIALIZING)]
        ),
        messages.image_not_pulled(1, 1, "istio-init", "as the kubelet says"),
    ),
    "the image of a sidecar next to a running main container": (
        a_status([], [container("a-proxy", waits("ImagePullBackOff")), container("main", RUNNING)]),
        messages.image_not_pulled(1, 1, "a-proxy", "as the kubelet says"),
    ),
    "a Secret of an init container": (
        a_status(
            [container("vault", waits("CreateContainerConfigError"))],
            [container("main", INITIALIZING)],
        ),
        messages.container_not_started(1, 1, "vault", "as the kubelet says"),
    ),
    "a reason of a later Kubernetes": (
        a_status([], [container("main", waits("DeviceNotPrepared"))]),
        messages.container_not_started(1, 1, "", "as the kubelet says"),
    ),
    "an image whose signature is wrong": (
        a_status([], [container("main", waits("SignatureValidationFailed"))]),
        messages.image_not_pulled(1, 1, "", "as the kubelet says"),
    ),
    "a native sidecar that crashes": (
        a_status(
            [
                container(
                    *("proxy", waits("CrashLoopBackOff", "back-off 40s restarting")),
                    lastState=CRASHED,
                )
            ],
            [container("main", INITIALIZING)],
        ),
        messages.container_crashes(1, 1, "proxy", "exit code 3: no vault"),
    ),
    "the first of two causes": (
        a_status(
            [container("one", DONE), container("base-check", waits("ErrImagePull", "401"))],
            [container("a", waits("ErrImagePull", "other")), container("main", INITIALIZING)],
        ),
        messages.image_not_pulled(1, 1, "base-check", "401"),
    ),
}


@pytest.mark.parametrize("case", PENDING)
def test_the_waiting_container_is_named(case: str) -> None:
    status, message = PENDING[case]
    world = World()
    world.settle()
    assert explain(job_of(world, "prepare", **status), 1) == message


def test_a_growing_back_off_changes_no_message() -> None:
    world = World()
    world.settle()
    found = set()
    for seconds in (10, 20, 40):
        state = waits("CrashLoopBackOff", f"back-off {seconds}s restarting failed container")
        status = a_status([container("proxy", state, lastState=CRASHED)], [])
        found.add(explain(job_of(world, "prepare", **status), 1))
    assert len(found) == 1


def test_a_starting_pod_has_no_cause() -> None:
    world = World()
    world.settle()
    for inits, state in (
        ([container("istio-init", RUNNING)], INITIALIZING),
        ([container("istio-init", CREATING)], INITIALIZING),
        ([], CREATING),
    ):
        job = job_of(world, "prepare", **a_status(inits, [container("main", state)]))
        assert explain(job, 1).reason == Reason.STARTING


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            KubeletEvent("FailedMount", 'MountVolume.SetUp failed for volume "cache": no claim'),
            messages.volume_not_mounted(
                1, 1, 'MountVolume.SetUp failed for volume "cache": no claim'
            ),
        ),
        (
            KubeletEvent(
                "FailedMount",
                'MountVolume.SetUp failed for volume "finetune-certificates" : '
                "configmap references non-existent config key: ca.crt",
            ),
            messages.certificates_not_mounted(
                1,
                1,
                'MountVolume.SetUp failed for volume "finetune-certificates" : '
                "configmap references non-existent config key: ca.crt",
            ),
        ),
        (
            KubeletEvent("FailedAttachVolume", "Multi-Attach error"),
            messages.volume_not_mounted(1, 1, "Multi-Attach error"),
        ),
        (
            KubeletEvent("FailedCreatePodSandBox", f'failed to set up sandbox "{"0a" * 32}": no'),
            messages.sandbox_not_created(1, 1, 'failed to set up sandbox "...": no'),
        ),
        (
            KubeletEvent("NetworkNotReady", "network is not ready"),
            messages.sandbox_not_created(1, 1, "network is not ready"),
        ),
        (
            KubeletEvent("FailedPrepareDynamicResources", "no claim"),
            messages.container_not_started(1, 1, "", "FailedPrepareDynamicResources: no claim"),
        ),
        (KubeletEvent("", "vault-agent"), messages.pods_initializing(1, 1, "vault-agent")),
    ],
)
def test_a_late_pod_is_explained_with_the_event_of_the_kubelet(
    event: KubeletEvent, message: messages.StatusMessage
) -> None:
    from dataclasses import replace

    world = World()
    world.settle()
    job = job_of(world, "prepare", phase="Pending")
    job = replace(job, pods=tuple(replace(pod, kubelet_event=event) for pod in job.pods))
    assert explain(job, 1) == message


def test_an_injected_init_container_that_fails_is_the_cause() -> None:
    world = World().until_training()
    status = a_status(
        [container("vault-agent", CRASHED)], [container("main", INITIALIZING)], "Failed"
    )
    verdict = judge(job_of(world, "a1", **status))
    assert verdict is not None
    assert verdict.error.code == Reason.INJECTED_CONTAINER
    assert "container vault-agent of pod" in verdict.error.message
    assert "no vault" in verdict.error.message
    assert verdict.is_counted
    assert not verdict.is_users


def test_an_injected_container_that_is_killed_for_memory_is_named() -> None:
    world = World()
    world.settle()
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    status = a_status([container("a", killed)], [container("main", INITIALIZING)], "Failed")
    verdict = judge(job_of(world, "prepare", **status))
    assert verdict is not None
    assert "container a of pod" in verdict.error.message
    assert "OOMKilled" in verdict.error.message


def test_a_message_of_an_injected_container_is_not_a_result() -> None:
    """A webhook's container can neither publish a model nor end the FineTune as a user's error."""
    world = World().until_training()
    for outcome in (trained(), failed(Reason.INVALID_DATA)):
        ended = {"terminated": {"exitCode": 65, "message": outcome.to_termination_message()}}
        for status in (
            a_status([container("x", ended)], [container("main", INITIALIZING)], "Failed"),
            a_status([], [container("a", ended), container("main", DONE)], "Failed"),
        ):
            job = job_of(world, "a1", **status)
            assert job.pods[0].outcome is None
            verdict = judge(job)
            assert verdict is not None
            assert verdict.error.code == Reason.INJECTED_CONTAINER


@pytest.mark.parametrize("position", ["a-proxy", "z-proxy"])
def test_a_sidecar_that_fails_after_the_success_changes_nothing(position: str) -> None:
    world = World().until_running()
    ended = {"terminated": {"exitCode": 0, "message": trained().to_termination_message()}}
    sidecar, main = container(position, CRASHED), container("main", ended)
    others = sorted([sidecar, main], key=lambda item: str(item["name"]))
    world.pod("a1")["status"] = a_status([], others, "Failed")
    world.settle()
    assert world.status.state == "succeeded"


def test_a_native_sidecar_that_ends_with_its_pod_is_no_failure() -> None:
    world = World().until_training()
    name = world.job("a1")
    pod = world.pods[name][0]
    pod["spec"] = {"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]}
    stopped = {"terminated": {"exitCode": 143, "reason": "Error"}}
    crashed = {"terminated": {"exitCode": 1, "message": "Traceback"}}
    pod["status"] = a_status([container("proxy", stopped)], [container("main", crashed)], "Failed")
    verdict = judge(Job.parse(world.jobs[name], world.pods[name]))
    assert verdict is not None
    assert verdict.error.code == Reason.RANK_CRASHED


def test_only_the_main_container_makes_a_pod_ready() -> None:
    world = World().until_training()
    sidecar = container("proxy", waits("ImagePullBackOff"))
    unready = {"conditions": [{"type": "Ready", "status": "False"}]}
    for pod in world.pods[world.job("a1")]:
        status = a_status([], [container("main", RUNNING), sidecar], "Running")
        pod["status"] = status | unready
    world.settle()
    assert world.status.state == "running"


def test_exit_codes_of_injected_containers_fail_no_job() -> None:
    world = World()
    world.settle()
    rules = world.created[0]["spec"]["podFailurePolicy"]["rules"]
    pod = world.created[0]["spec"]["template"]["spec"]
    ours = {item["name"] for item in (*pod["initContainers"], *pod["containers"])}
    named = [rule["onExitCodes"].get("containerName") for rule in rules if "onExitCodes" in rule]
    assert set(named) == ours == {names.CONTAINER, names.CONTAINER_BASE_CHECK}


def test_a_prepared_dataset_counts_although_a_sidecar_failed() -> None:
    world = World()
    world.settle()
    ended = {"terminated": {"exitCode": 0, "message": prepared().to_termination_message()}}
    others = [container("a-proxy", CRASHED), container("main", ended)]
    world.pod("prepare")["status"] = a_status([], others, "Failed")
    world.settle()
    assert [name for name in world.jobs if name.endswith("-a1")]


def test_a_pod_without_any_status_is_read() -> None:
    pod = Pod.parse({"metadata": {"name": "p"}})
    assert (pod.waiting_reason, pod.injected_failure, pod.exit_code) == (None, None, None)
