"""The container that checks the base model: in the Job, and as the cause of every state."""

from typing import Any

import pytest

from finetune_api import names
from finetune_api.names import Reason, State
from finetune_api.wire import JsonObject
from finetune_operator.build.pods import CONTAINER_SECURITY
from finetune_operator.core.observed import Pod
from finetune_operator.kube.store import Store
from tests.support.objects import World, a_settings, failed, prepared, secret_keys

CHECK = names.CONTAINER_BASE_CHECK
INITIALIZING = {"waiting": {"reason": "PodInitializing"}}


def a_world(**settings: Any) -> World:
    world = World(settings=a_settings(**settings))
    world.settle()
    return world


def pod_spec(world: World) -> JsonObject:
    found: JsonObject = world.created[0]["spec"]["template"]["spec"]
    return found


def begin(
    world: World, state: JsonObject, phase: str = "Pending", main: JsonObject = INITIALIZING
) -> None:
    """The check container has a state. A webhook has injected a container on each side of ours."""
    pod = world.pod("prepare")
    injected = {"name": "a-proxy", "state": {"running": {}}}
    done = {"name": "a-init", "state": {"terminated": {"exitCode": 0}}}
    pod["spec"] = {
        **pod_spec(world),
        "containers": [{"name": "a-proxy"}, *pod_spec(world)["containers"]],
    }
    pod["status"] = {
        "phase": phase,
        "initContainerStatuses": [done, {"name": CHECK, "state": state}],
        "containerStatuses": [injected, {"name": names.CONTAINER, "state": main}],
    }


def ended(code: int, message: str = "", reason: str = "Error") -> JsonObject:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def test_the_check_has_the_trainer_s_image_and_is_as_restricted_as_the_main_container() -> None:
    env = {"HF_ENDPOINT": "https://hub.example"}
    runtime = {"name": "nvidia", "trainerImage": "registry/own:2", "accelerator": "nvidia"}
    amounts = {"cpu": "2", "memory": "3Gi"}
    world = a_world(
        runtimes=[{**runtime, "env": env, "securityContext": {"runAsUser": 0}}],
        baseCheck={"resources": amounts},
        imagePullPolicy="Always",
    )
    (check,), (main,) = pod_spec(world)["initContainers"], pod_spec(world)["containers"]
    assert check["image"] == "registry/own:2"
    assert check["resources"] == {"requests": amounts, "limits": amounts}
    assert {"name": "HF_ENDPOINT", "value": env["HF_ENDPOINT"]} in check["env"]
    assert [item for item in main["env"] if "value" in item] == [
        item for item in check["env"] if "value" in item and item["name"] not in env
    ]
    keys = secret_keys(main)
    assert keys.pop("HF_ENDPOINT") == ("finetune-s3", True)  # the runtime's own replaces it
    assert secret_keys(check) == keys
    assert check["securityContext"] == CONTAINER_SECURITY
    same = ("securityContext", "volumeMounts", "imagePullPolicy")
    assert {key: check[key] for key in same} == {key: main[key] for key in same}


def test_an_image_of_an_earlier_version_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    command = pod_spec(a_world())["initContainers"][0]["command"]
    assert command[:2] == ["python", "-c"]
    run: list[str] = []
    monkeypatch.setattr("runpy.run_module", lambda name, **_: run.append(name))
    for spec, expected in ((None, []), (object(), ["finetune_trainer.base_check"])):
        with monkeypatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda name, found=spec: found)
            exec(command[2], {})
        assert run == expected


def test_the_check_can_be_disabled() -> None:
    assert "initContainers" not in pod_spec(a_world(baseCheck={"enabled": False}))


def test_a_base_model_that_cannot_be_trained_fails_without_a_training_pod() -> None:
    world = a_world()
    lines = ["lm_head.weight is missing"]
    outcome = failed(Reason.BASE_MODEL_INVALID, "it has no head", lines=lines, hint="add it")
    begin(world, ended(65, outcome.to_termination_message()), "Failed")
    world.fail_job("prepare")
    world.settle()
    error = world.status.error
    assert (world.status.state, error.code) == (State.FAILED, Reason.BASE_MODEL_INVALID)
    assert (error.message, error.lines, error.hint) == ("it has no head", lines, "add it")
    assert len(world.created) == 1


def test_the_data_is_checked_after_the_base_model() -> None:
    world = a_world()
    begin(world, {"running": {}})
    world.settle()
    assert world.status.state == State.PENDING
    begin(world, ended(0, reason="Completed"), "Succeeded", ended(0, _text(prepared())))
    world.settle()
    assert len(world.created) > 1


def test_a_main_container_that_fails_after_the_check_is_the_cause() -> None:
    world = a_world()
    outcome = failed(Reason.INVALID_DATA, "line 3")
    begin(world, ended(0, reason="Completed"), "Failed", ended(65, _text(outcome)))
    world.fail_job("prepare")
    world.settle()
    assert world.status.error.code == Reason.INVALID_DATA


def test_an_image_that_cannot_be_pulled_is_explained() -> None:
    world = a_world()
    begin(world, {"waiting": {"reason": "ErrImagePull", "message": "registry says 401"}})
    world.settle()
    assert "registry says 401" in world.status.message


def test_a_check_that_is_killed_for_memory_names_its_own_setting() -> None:
    world = a_world(baseCheck={"resources": {"memory": "300Mi"}})
    begin(world, ended(137, reason="OOMKilled"), "Failed")
    world.fail_job("prepare")
    world.settle()
    error = world.status.error
    assert error.code == Reason.OUT_OF_MEMORY
    assert "its limit of 300Mi" in error.message
    assert "baseCheck.resources.memory" in error.hint


def test_a_check_that_starts_is_no_news_and_one_that_fails_is() -> None:
    world, store = a_world(), Store()
    pod = world.pod("prepare")
    pod["metadata"] |= {"uid": "p", "namespace": "team"}
    states: list[JsonObject] = [{"waiting": {"reason": "PodInitializing"}}, {"running": {}}]
    for state in states:
        begin(world, state)
        assert not store.saw("pods", pod, "MODIFIED")
    begin(world, ended(0, reason="Completed"), main=INITIALIZING)
    assert not store.saw("pods", pod, "MODIFIED")
    begin(world, ended(65, "x"), "Failed")
    assert store.saw("pods", pod, "MODIFIED")


def test_a_pod_without_container_names_is_read_as_before() -> None:
    raw = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"resources": {"limits": {"memory": "1Gi"}}}]},
        "status": {"containerStatuses": [{"state": ended(7)}]},
    }
    pod = Pod.parse(raw)
    assert (pod.exit_code, pod.memory_limit, pod.container) == (7, "1Gi", names.CONTAINER)


def _text(outcome: Any) -> str:
    return str(outcome.to_termination_message())
