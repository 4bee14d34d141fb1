"""Gangs that each hold what the other one needs, with the real scheduler and Job controller.

A gang of each case has its own device, so that all cases share one cluster and one operator. The
test binds the first pods, as another order of the scheduler would, and then adds the room.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster.controlplane import ControlPlane
from finetune_api import names
from tests.integration.conftest import READY, Kubelet, Operator, ended, with_addresses
from tests.integration.test_scheduling import add_node, start_scheduler
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.objects import prepared, trained

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

NODE = "node-1"
PATIENCE = 2
_numbers = itertools.count(1)
GROUP_API = "scheduling.k8s.io/v1alpha2"


@dataclass(frozen=True)
class Case:
    """Gangs in the order of their creation: the number of pods, and of those with a node."""

    name: str
    room: int
    gangs: tuple[tuple[int, int], ...]
    has_conflict: bool = True  # nothing can end before one of them is released
    foreign: int = 0  # places that a pod of others holds

    @property
    def device(self) -> str:
        return f"test.dev/{self.name}"

    def finetune(self, index: int) -> str:
        return f"{self.name}-{index}"

    def fits(self, index: int) -> bool:
        return self.gangs[index][0] <= self.room - self.foreign


CASES = [
    Case("free", 3, ((2, 0), (2, 0)), has_conflict=False),  # the scheduler's own order
    Case("pair", 2, ((2, 1), (2, 1))),
    Case("three", 3, ((2, 1), (2, 1), (2, 1))),
    Case("unequal", 4, ((3, 2), (4, 2))),
    Case("foreign", 3, ((2, 1), (2, 1)), foreign=1),
    Case("large", 3, ((4, 3), (2, 0))),  # the first one never fits
]


def gangs_of(cases: Sequence[Case]) -> list[tuple[Case, int]]:
    return [(case, index) for case in cases for index in range(len(case.gangs))]


ALL = gangs_of(CASES)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """It serves PodGroups, which the operator uses only if its settings say so."""
    yield from start_scheduler(("GenericWorkload", "GangScheduling"), (GROUP_API,))


@pytest.fixture
def team(plane: ControlPlane) -> Kubectl:
    admin = Kubectl(str(plane.kubectl), str(plane.kubeconfig))
    name = f"gangs-{next(_numbers)}"
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return admin.within(name)


@pytest.fixture
def grouping(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    """An operator that may create PodGroups, and releases nothing itself."""
    made = Operator(team, tools / "helm", tmp_path, gangSeconds=0, podGroups=True)
    made.allow(
        {"apiGroups": ["scheduling.k8s.io"], "resources": ["podgroups"], "verbs": ["get", "create"]}
    )
    made.start()
    yield made
    made.stop()


@pytest.fixture
def operator(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(team, tools / "helm", tmp_path, gangSeconds=PATIENCE)
    made.start()
    yield made
    made.stop()


class Node:
    """The kubelet of the node: pods end well once all pods of their attempt have run."""

    def __init__(self, team: Kubectl) -> None:
        self.team = team
        self.kubelet = Kubelet(team)
        self.pods: list[dict[str, Any]] = []

    def offer(self, case: Case) -> None:
        amounts = {case.device: str(case.room)}
        self.team.patch_status("node", NODE, {"capacity": amounts, "allocatable": amounts})

    def bind(self, pod: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}
        self.team.create_raw(f"pods/{pod}/binding", body)

    def of(self, name: str, component: str = names.COMPONENT_TRAIN) -> list[dict[str, Any]]:
        wanted = {names.LABEL_FINETUNE: name, names.LABEL_COMPONENT: component}
        return [
            pod for pod in self.pods if wanted.items() <= pod["metadata"].get("labels", {}).items()
        ]

    def look(self) -> None:
        self.pods = self.team.list("pods")

    def check_data(self) -> None:
        """End the pods that check the data."""
        done = ended(0, prepared().to_termination_message())
        self._set({name: done for name, pod in self._new() if component_of(pod) == "prepare"})

    def work(self, cases: tuple[Case, ...] = tuple(CASES)) -> dict[str, dict[str, Any]]:
        """Confirm deletions, start whole gangs, and end those that run. Return the statuses."""
        self.look()
        found = self.team.list("finetunes")
        statuses = {item["metadata"]["name"]: item.get("status", {}) for item in found}
        gone = [pod["metadata"]["name"] for pod in self.pods if is_going(pod)]
        if gone:
            options = ("--force", "--grace-period=0", "--wait=false", "--ignore-not-found")
            self.team("delete", "pods", *options, *gone)
        changes: dict[str, dict[str, Any]] = {}
        for case, index in gangs_of(cases):
            name = case.finetune(index)
            placed = [
                pod for pod in self.of(name) if "nodeName" in pod["spec"] and not is_going(pod)
            ]
            phases = {pod["status"]["phase"] for pod in placed}
            if len(placed) < case.gangs[index][0]:
                continue
            if phases == {"Pending"}:
                changes |= {pod["metadata"]["name"]: READY for pod in placed}
            elif phases == {"Running"} and statuses[name].get("state") == "running":
                changes |= {pod["metadata"]["name"]: done_by(pod, name) for pod in placed}
        self._set(changes)
        return statuses

    def _new(self) -> list[tuple[str, dict[str, Any]]]:
        pending = [pod for pod in self.pods if pod["status"]["phase"] == "Pending"]
        return [(pod["metadata"]["name"], pod) for pod in pending]

    def _set(self, statuses: dict[str, dict[str, Any]]) -> None:
        if statuses:
            with contextlib.suppress(RefusedError):  # a pod went, or changed: the next round
                self.kubelet.set_status(statuses)


def is_going(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_placed(pod: dict[str, Any]) -> bool:
    return "nodeName" in pod["spec"] and pod["status"]["phase"] in {"Pending", "Running"}


def component_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"].get("labels", {}).get(names.LABEL_COMPONENT))


def done_by(pod: dict[str, Any], name: str) -> dict[str, Any]:
    """The status of a pod of an attempt that has published. Each FineTune has a model's name."""
    message = trained().to_termination_message().replace("tone-2026", f"{name}-2026")
    is_first = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "0"
    return with_addresses(ended(0, message if is_first else ""), pod["spec"])


def create(team: Kubectl, case: Case) -> None:
    for index, (pods, _) in enumerate(case.gangs):
        resources = {"nodes": pods, "gpusPerNode": 1, "gpuResource": case.device}
        spec = {"model": "ada", "maxRestarts": 0, "resources": resources}
        team.apply(finetune(case.finetune(index), **spec))
    for number in range(case.foreign):
        container = {"name": "c", "image": "x", "resources": {"limits": {case.device: "1"}}}
        labels = {names.LABEL_COMPONENT: "none"}
        team.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{case.name}-foreign-{number}", "labels": labels},
                "spec": {"containers": [container]},
            }
        )


def is_refused(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "PodScheduled" and item["status"] == "False" for item in conditions)


def test_gangs_that_hold_what_the_others_need_all_end_and_none_is_counted(
    team: Kubectl, operator: Operator
) -> None:
    add_node(team)
    node = Node(team)
    for case in CASES:  # the times of creation are whole seconds, and names decide between equals
        create(team, case)

    def all_wait() -> bool:
        node.look()
        node.check_data()
        return all(
            len(found := node.of(case.finetune(index))) == case.gangs[index][0]
            and all(map(is_refused, found))
            for case, index in ALL
        )

    until(all_wait, 90, operator.logs)
    for case in CASES:
        for index, (_, held) in enumerate(case.gangs):
            for pod in node.of(case.finetune(index))[:held]:
                node.bind(pod["metadata"]["name"])
        for number in range(case.foreign):
            node.bind(f"{case.name}-foreign-{number}")
        node.offer(case)

    def all_end() -> bool:
        statuses = node.work()
        ended = {name for name, status in statuses.items() if status.get("state") == "succeeded"}
        return {case.finetune(index) for case, index in ALL if case.fits(index)} <= ended

    until(all_end, 300, lambda: f"{team('get', 'finetunes', '-o', 'wide')}\n{operator.logs()}")
    released: set[str] = set()
    for case, index in ALL:
        status = team.status(case.finetune(index))
        was_released = any(item.get("reason") == "GangReleased" for item in status["attempts"])
        told = [item for item in status["events"] if item["reason"] == "GangReleased"]
        assert bool(told) == was_released
        released |= {case.name} if was_released else set()
        assert not any(item.get("counted") for item in status["attempts"])
        assert status["state"] == ("succeeded" if case.fits(index) else "pending")
    assert released == {case.name for case in CASES if case.has_conflict}
    posted = [item for item in team.list("events") if item["reason"] == "GangReleased"]
    assert {item["involvedObject"]["name"].split("-")[0] for item in posted} == released


def test_the_scheduler_of_kubernetes_places_all_pods_of_a_group_or_none(
    team: Kubectl, grouping: Operator
) -> None:
    add_node(team)
    node = Node(team)
    case = Case("grouped", 3, ((2, 0), (2, 0)))
    node.offer(case)
    create(team, case)
    seen: set[tuple[int, int]] = set()

    def all_end() -> bool:
        node.look()
        node.check_data()
        held = [sum(map(is_placed, node.of(case.finetune(index)))) for index in range(2)]
        seen.add((held[0], held[1]))
        statuses = node.work((case,))
        return all(item.get("state") == "succeeded" for item in statuses.values())

    until(all_end, 200, lambda: f"{team('get', 'finetunes', '-o', 'wide')}\n{grouping.logs()}")
    assert seen & {(2, 0), (0, 2)}
    assert not seen & {(2, 1), (1, 2)}  # as without groups
    groups = team.list("podgroups.v1alpha2.scheduling.k8s.io")
    assert {item["spec"]["schedulingPolicy"]["gang"]["minCount"] for item in groups} == {2}
    for group in groups:
        (owner,) = group["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Job", group["metadata"]["name"])
    for index in range(2):
        assert [item["reason"] for item in team.status(case.finetune(index))["attempts"]] == [
            "Succeeded"
        ]
