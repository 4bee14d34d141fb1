"""An upgrade and a rollback of the operator in the middle of a run: `tests.support.previous`.

Both versions are the real program against a real API server. The Jobs that one of them creates
hold the tasks of its pods, which the images of the other version must understand.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finetune_api import names
from finetune_api.outcome import EpochMetrics, Outcome
from finetune_api.tasks import PrepareTask, TrainTask
from tests.integration.conftest import Kubelet, Operator, serve_progress
from tests.integration.crowds import published_by
from tests.support import previous
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import failed, prepared, progress

pytestmark = pytest.mark.integration

RANK_0 = "127.0.0.78"  # of this module alone
ONE_NODE = {"model": "ada", "resources": {"nodes": 1, "gpusPerNode": 2}}
FIRST_EPOCH = EpochMetrics(epoch=1, step=25, training_loss=2.0, learning_rate=4e-5)
# The events of one life, by reason.
POSTED = Counter(
    {
        "Created": 1,
        "Started": 1,
        "EpochCompleted": 2,
        "Restarted": 1,
        "Suspended": 1,
        "Resumed": 1,
        "ModelUploaded": 1,
        "Succeeded": 1,
    }
)
RECORDED_ONLY = Counter({"Advice": 1, "BaseModelLoaded": 1, "ResultsUploaded": 1})
POSTED_BEFORE = {"BaseModelLoaded", "ResultsUploaded"}  # the previous version posts these
VERSIONS = ("previous", "current")


@pytest.fixture
def rank_0() -> Iterator[dict[str, Any]]:
    """The report of rank 0 in its second epoch; a test may change it."""
    report = progress(step=30, epoch=1.2, checkpoint_step=25, completed_epochs=[FIRST_EPOCH])
    with serve_progress(RANK_0, report.to_dict()) as answer:
        yield answer


def run_version(operator: Operator, version: str) -> None:
    """Replace the operator's process by one of this version."""
    operator.stop()
    operator.python_path = previous.python_path() if version == "previous" else None
    operator.start()


def live(
    team: Kubectl,
    kubelet: Kubelet,
    name: str,
    rank_0: dict[str, Any],
    explain: Callable[[], str],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Prepare, train an epoch, crash, resume, `between`, train on, suspend, resume, and publish."""
    team.apply(finetune(name, **ONE_NODE))
    (pod,) = kubelet.start_pods(job_of(team, name, "prepare"))
    found = prepared().prepared
    assert found is not None
    advised = Outcome(prepared=found.replace(advice=["Use more rows."]))
    kubelet.end(pod, 0, advised.to_termination_message())
    rank_0 |= {"attempt": 1, "step": 30}
    pod = train(team, kubelet, name, 1)
    reaches(team, name, 30, explain)
    kubelet.end(pod, 137, failed("RankCrashed").to_termination_message())
    rank_0 |= {"attempt": 2, "step": 31, "resumedFromStep": 25}
    train(team, kubelet, name, 2)
    reaches(team, name, 31, explain)
    between()
    rank_0 |= {"step": 40}
    reaches(team, name, 40, explain)
    suspend(team, name, True)
    until(lambda: team.status(name)["reason"] == "Suspended", 30, explain)
    suspend(team, name, False)
    rank_0 |= {"attempt": 3, "step": 41, "resumedFromStep": 40}
    pod = train(team, kubelet, name, 3)
    reaches(team, name, 41, explain)
    kubelet.end(pod, 0, published_by(name).to_termination_message())
    team.wait_state(name, "succeeded")


def job_of(team: Kubectl, name: str, ending: str) -> dict[str, Any]:
    """The Job of a FineTune, once it exists."""

    def found() -> list[dict[str, Any]]:
        jobs = team.list("jobs", f"{names.LABEL_FINETUNE}={name}")
        return [job for job in jobs if job["metadata"]["name"].endswith(f"-{ending}")]

    until(found, 40, lambda: f"no Job {ending} of {name}: {team('get', 'finetunes,jobs')}")
    return found()[0]


def train(team: Kubectl, kubelet: Kubelet, name: str, attempt: int) -> str:
    (pod,) = kubelet.start_pods(job_of(team, name, f"a{attempt}"))
    kubelet.ready(pod)
    team.patch_status("pod", pod, {"podIP": RANK_0, "podIPs": [{"ip": RANK_0}]})
    return pod


def suspend(team: Kubectl, name: str, wanted: bool) -> None:
    patch = json.dumps({"spec": {"suspend": wanted}})
    team("patch", "finetune", name, "--type=merge", "-p", patch)


def reaches(team: Kubectl, name: str, step: int, explain: Callable[[], str]) -> None:
    until(lambda: team.status(name).get("progress", {}).get("step") == step, 40, explain)


def posted(team: Kubectl, name: str, ended: Callable[[], str]) -> Counter[str]:
    """The Kubernetes Events of a FineTune that succeeded, counted by reason."""

    def found() -> list[dict[str, Any]]:
        return [item for item in team.list("events") if item["involvedObject"]["name"] == name]

    until(lambda: any(item["reason"] == "Succeeded" for item in found()), 30, ended)
    assert all(item.get("count", 1) == 1 for item in found())
    return Counter(item["reason"] for item in found())


def recorded(team: Kubectl, name: str) -> Counter[str]:
    """The events in the status, counted by reason."""
    return Counter(item["reason"] for item in team.status(name)["events"])


@pytest.mark.parametrize(("first", "second"), [VERSIONS, VERSIONS[::-1]])
def test_another_version_takes_over_and_repeats_no_event(
    first: str,
    second: str,
    team: Kubectl,
    operator: Operator,
    kubelet: Kubelet,
    rank_0: dict[str, Any],
) -> None:
    run_version(operator, first)
    live(
        *(team, kubelet, "tone", rank_0, operator.logs),
        between=lambda: run_version(operator, second),
    )
    assert recorded(team, "tone") == POSTED + RECORDED_ONLY
    found = posted(team, "tone", operator.logs)
    assert POSTED <= found <= POSTED + Counter(POSTED_BEFORE)


def test_the_tasks_of_both_operators_mean_the_same_to_both_images(
    team: Kubectl, operator: Operator, kubelet: Kubelet, rank_0: dict[str, Any]
) -> None:
    tasks: dict[str, list[str]] = {}
    for version in VERSIONS:
        run_version(operator, version)
        team.apply(finetune(version, **ONE_NODE))
        prepare = job_of(team, version, "prepare")
        (pod,) = kubelet.start_pods(prepare)
        kubelet.end(pod, 0, prepared().to_termination_message())
        jobs = (prepare, job_of(team, version, "a1"))
        tasks[version] = [task_of(job) for job in jobs]
        for job in jobs:
            main = job["spec"]["template"]["spec"]["containers"][0]
            assert main.get("command") is None, "the image's own entry point"
    for model, old, new in zip((PrepareTask, TrainTask), *tasks.values(), strict=True):
        # The previous version drops later fields, which must then have their defaults.
        kind = f"finetune_api.tasks:{model.__name__}"
        meant = model.model_validate_json(new)
        if isinstance(meant, PrepareTask):  # the previous image adopts nothing
            meant = meant.replace(reuse=None)
        assert model.model_validate_json(previous.parse(kind, new)) == meant
        assert previous.parse(kind, model.model_validate_json(old).to_json()) == old


def task_of(job: dict[str, Any]) -> str:
    environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return next(str(item["value"]) for item in environment if item["name"] == names.ENV_TASK)
