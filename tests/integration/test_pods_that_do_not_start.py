"""Pods that have a node and do not start, with the status and the Events of a kubelet."""

from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.names import Reason
from tests.integration.conftest import Kubelet, Operator
from tests.integration.crowds import TWO_NODES
from tests.integration.test_refusals import wait_refused
from tests.support.kubectl import Kubectl, finetune
from tests.support.objects import prepared, trained

pytestmark = [pytest.mark.integration, pytest.mark.slow]

INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
SINCE = "2026-11-21T12:00:00Z"


def container(name: str, state: dict[str, Any]) -> dict[str, Any]:
    fields = {"image": "registry/image:1", "imageID": "", "restartCount": 0}
    return {"name": name, "state": state, "ready": "running" in state, **fields}


def set_container(kubelet: Kubelet, pod: str, name: str, state: dict[str, Any]) -> None:
    """An injected container, which the kubelet sorts before ours."""
    status = {"phase": "Pending", "startTime": SINCE}
    inits = [container(name, state)]
    main = [container("main", INITIALIZING)]
    kubelet.set_status({pod: {**status, "initContainerStatuses": inits, "containerStatuses": main}})


def write_event(team: Kubectl, pod: str, reason: str, message: str) -> None:
    """An Event as the kubelet writes it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = team.get("pod", pod)["metadata"]
    about = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": found["uid"]}
    team.apply(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pod}.{reason.lower()}"},
            "involvedObject": {**about, "namespace": found["namespace"]},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 3,
            "source": {"component": "kubelet", "host": "node-1"},
        }
    )


def test_the_kubelet_s_words_explain_a_prepare_pod_and_an_injected_failure(
    team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    team.apply(finetune("tone", **TWO_NODES))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    pull = {"waiting": {"reason": "ErrImagePull", "message": "registry says 401"}}
    set_container(kubelet, pod, "a-proxy", pull)
    words = "cannot pull the image of container a-proxy: registry says 401"
    wait_refused(team, Reason.IMAGE_PULL, words, killed_operator)
    crashed = {"exitCode": 3, "reason": "Error", "startedAt": SINCE, "finishedAt": SINCE}
    set_container(kubelet, pod, "a-proxy", {"terminated": crashed})
    kubelet.set_status({pod: {"phase": "Failed"}})
    words = f"container a-proxy of pod {pod} ended with exit code 3"
    wait_refused(team, Reason.INJECTED_CONTAINER, words, killed_operator)


def test_a_volume_that_cannot_be_mounted_is_named(
    team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    team.apply(finetune("tone", **TWO_NODES))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    node = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}}
    target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
    team.create_raw(f"pods/{pod}/binding", {**node, "target": target})
    cause = 'MountVolume.SetUp failed for volume "work" : no space left on device'
    write_event(team, pod, "FailedMount", cause)
    kubelet.set_status({pod: {"phase": "Pending", "startTime": SINCE}})
    team("patch", "finetune", "tone", "--type=merge", "-p", '{"spec": {"maxRestarts": 1}}')
    wait_refused(team, Reason.VOLUME_MOUNT, cause, killed_operator)


def test_an_injected_sidecar_is_never_taken_for_rank_0(
    team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    """The kubelet sorts statuses by name, so sidecars are before and after ours."""
    running = {"running": {"startedAt": SINCE}}
    first, last = (container(name, running) for name in ("a-proxy", "z-proxy"))

    def end(pod: str, message: str, code: int = 0) -> None:
        ended = {"exitCode": code, "message": message, "startedAt": SINCE, "finishedAt": SINCE}
        main = container("main", {"terminated": ended})
        kubelet.set_status({pod: {"phase": "Running", "containerStatuses": [first, main, last]}})

    team.apply(finetune("tone", **TWO_NODES))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    end(pod, prepared().to_termination_message())
    pods = kubelet.start_pods(kubelet.job("-a1"))
    statuses = [first, container("main", running), last]
    status = {"phase": "Running", "startTime": SINCE, "containerStatuses": statuses}
    kubelet.set_status(dict.fromkeys(pods, status))
    team.wait_state("tone", "running")
    end(pods[1], "")
    end(pods[0], trained().to_termination_message())
    team.wait_state("tone", "succeeded")
