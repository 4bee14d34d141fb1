"""FineTunes of older operator versions continue, also under an operator with a wrong clock.

`older/` has the objects of two earlier operator versions with a running FineTune. The numbers are
those of the reliability table.
"""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from devcluster.controlplane import ControlPlane
from finetune_api import names
from finetune_operator import messages
from finetune_operator.core.plan import stamp
from tests.integration.conftest import HERE, READY, Kubelet, Operator
from tests.integration.crowds import TWO_NODES, Crowd
from tests.integration.invariants import check_invariants
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import UID

pytestmark = pytest.mark.integration

# FineTune -> the file with its objects
# An Event with the text of the previous operator version and without `attempt` and `key`.
EPOCH_EVENT = {
    "at": "2026-11-21T12:00:00Z",
    "level": "info",
    "reason": "EpochCompleted",
    "message": "Completed epoch 1/2 (training loss 2.0000)",
}
BEGUN = {"well": "without-dataset", "broken": "without-dataset", "again": "first-datasets"}


def begin(team: Kubectl, kubelet: Kubelet, name: str) -> None:
    """Create the objects that an older operator left: a running FineTune with two pods."""
    team.apply(finetune(name, **TWO_NODES))
    uid = team.get("finetune", name)["metadata"]["uid"]
    text = (HERE / "older" / f"{BEGUN[name]}.json").read_text()
    for old, new in ((UID, uid), (UID[:8], uid[:8]), ("tone", name), ("team", team.namespace)):
        text = text.replace(old, new)
    left = json.loads(text)
    left["status"]["events"].append(EPOCH_EVENT)
    team.apply(*left["jobs"])
    team.patch_status("finetune", name, left["status"])


def train_jobs(team: Kubectl) -> dict[str, Any]:
    """By name. No Job controller marks the prepare Jobs as complete, so they are deleted."""
    selector = f"{names.LABEL_COMPONENT}={names.COMPONENT_TRAIN}"
    return {job["metadata"]["name"]: job for job in team.list("jobs", selector)}


def test_t25_finetunes_of_older_operators_continue_unchanged(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    operator.stop()
    for name in BEGUN:
        begin(team, kubelet, name)
    crowd = Crowd(team, kubelet, *BEGUN)
    crowd.train()
    before = train_jobs(team)
    operator.start()
    # It has reconciled all of them once it has created their Services.
    until(lambda: len(team.list("services")) == len(BEGUN), 30, operator.logs)
    assert train_jobs(team) == before
    for status in crowd.wait("running").values():
        assert [item["number"] for item in status["attempts"]] == [1]

    Crowd(team, kubelet, "well").publish()
    for name in ("broken", "again"):
        (job,) = Crowd(team, kubelet, name).jobs("-a1").values()
        kubelet.end(f"{job['metadata']['name']}-1", 137)
    again = Crowd(team, kubelet, "again")
    again.train("-a2")
    again.publish("-a2")
    again.wait("succeeded", operator.logs)
    assert len(team.wait_state("well", "succeeded")["attempts"]) == 1
    broken = team.wait_state("broken", "failed")
    assert broken["error"]["message"] == messages.DATASET_NOT_RECORDED.message
    assert [item["reason"] for item in broken["attempts"]] == ["RankCrashed"]
    check_invariants(team, operator, Path(control_plane.audit_log))
    check_events(team)


def check_events(team: Kubectl) -> None:
    """The status repeats no Event of the older operator, and none is posted to Kubernetes again."""
    posted = Counter(
        (item["involvedObject"]["name"], item["reason"]) for item in team.list("events")
    )
    for name in BEGUN:
        events = team.status(name)["events"]
        assert [item["seq"] for item in events] == list(range(1, len(events) + 1))
        reasons = Counter(item["reason"] for item in events)
        for reason in ("Created", "BaseModelLoaded", "Started"):
            assert (reasons[reason], posted[name, reason]) == (1, 0)
    assert posted["well", "EpochCompleted"] == 1  # the second one
    epochs = [item for item in team.status("well")["events"] if item["reason"] == "EpochCompleted"]
    assert [item["key"] for item in epochs] == ["1", "2"]


SKEW = """
import datetime
class Skewed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(minutes={minutes})
datetime.datetime = Skewed
"""


@pytest.fixture(params=[-10, 10])
def skewed(
    request: pytest.FixtureRequest, team: Kubectl, tools: Path, tmp_path: Path
) -> Iterator[Operator]:
    """An operator whose clock is wrong by this many minutes."""
    made = Operator(team, tools / "helm", tmp_path, first=SKEW.format(minutes=request.param))
    made.start()
    yield made
    made.stop()


def test_t26_a_clock_that_is_wrong_by_ten_minutes_ends_nothing(
    team: Kubectl, skewed: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    crowd = Crowd(team, kubelet, "tone")
    crowd.create(activeDeadlineSeconds=300, pendingDeadlineSeconds=300)
    crowd.prepare()
    for ending in ("-a1", "-a2"):
        pods = kubelet.start_pods(*crowd.jobs(ending).values())
        kubelet.set_status(dict.fromkeys(pods, since_now()))
        until(lambda e=ending: is_running(team, e), 30, skewed.logs)  # type: ignore[misc]
        if ending == "-a1":
            kubelet.end(pods[1], 137)
    crowd.publish("-a2")
    (status,) = crowd.wait("succeeded", skewed.logs).values()
    assert [item["reason"] for item in status["attempts"]] == ["RankCrashed", "Succeeded"]
    for item in status["attempts"]:
        assert item["startedAt"] <= item["endedAt"]
        assert (time_of(item["endedAt"]) - time_of(item["startedAt"])).total_seconds() < 120
    check_invariants(team, skewed, Path(control_plane.audit_log))


def since_now() -> dict[str, Any]:
    """The status of a pod that the kubelet, with the right clock, has just started."""
    return {**READY, "startTime": stamp(datetime.now(UTC))}


def is_running(team: Kubectl, ending: str) -> bool:
    status = team.status("tone")
    return status.get("state") == "running" and len(status["attempts"]) == int(ending[2:])


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)
