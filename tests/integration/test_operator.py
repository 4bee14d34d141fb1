"""The operator process against a real API server, with only the permissions of the chart's Role."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster.controlplane import ControlPlane
from finetune_api import names
from tests.integration.conftest import Kubelet, Operator
from tests.support.audit import reads_by, writes_by
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import failed, prepared, trained

pytestmark = pytest.mark.integration

TWO_NODES = {"model": "ada", "resources": {"nodes": 2, "gpusPerNode": 0}}


def prepare(kubelet: Kubelet) -> None:
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    kubelet.end(pod, 0, prepared().to_termination_message())


LIVE_LOOK = {"get finetunes": 1, "list jobs": 1, "list pods": 1}  # before what cannot be undone


def test_a_whole_life_costs_no_reads_twelve_writes_and_one_an_epoch(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    log = Path(control_plane.audit_log)
    start = log.stat().st_size
    team.apply(finetune("tone", **TWO_NODES))
    prepare(kubelet)
    first, second = kubelet.start_pods(kubelet.job("-a1"))
    kubelet.ready(first)
    kubelet.ready(second)
    status = team.wait_state("tone", "running")
    assert status["resolved"]["hyperparameters"]["learningRate"] == 5e-5
    kubelet.end(first, 0, trained().to_termination_message())
    kubelet.end(second, 0)
    status = team.wait_state("tone", "succeeded")
    assert status["fineTunedModel"] == "ada:ft-team:tone-2026-11-21-12-00-00"
    model = team.get("model", "ada-ft-team-tone-2026-11-21-12-00-00")
    assert model["spec"]["id"] == status["fineTunedModel"]
    assert "ownerReferences" not in model["metadata"]
    team("wait", "--for=condition=Succeeded", "finetune/tone", "--timeout=5s")
    until(lambda: len(team.list("events")) >= 6, 10)
    assert reads_by(log, operator.user, team.namespace, start) == {}
    writes = writes_by(log, operator.user, team.namespace)
    assert writes == {
        "create jobs": 2,
        "create services": 1,
        "create models": 1,
        "patch finetunes/status": 4,
        "create events": 4 + 2,  # two epochs
    }
    reasons = {event["reason"] for event in team.list("events")}
    assert {"Created", "Started", "EpochCompleted", "ModelUploaded", "Succeeded"} <= reasons

    # Nothing is written while nothing happens, nor by a restart with settled FineTunes.
    operator.kill()
    operator.start()
    until(lambda: 'state="succeeded"} 1.0' in operator.metrics(), 10)
    assert writes_by(log, operator.user, team.namespace) == writes


def test_invalid_data_fails_with_the_line_and_no_train_job(
    team: Kubectl, operator: Operator, kubelet: Kubelet
) -> None:
    team.apply(finetune("tone", **TWO_NODES))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    message = "trainingFile s3://bucket/train.jsonl, line 17, column 3: not valid JSON"
    outcome = failed("InvalidData", message, param="trainingFile", lines=["line 17, column 3: x"])
    kubelet.end(pod, names.EXIT_USER, outcome.to_termination_message())
    status = team.wait_state("tone", "failed")
    assert status["error"]["code"] == "InvalidData"
    assert status["error"]["param"] == "trainingFile"
    assert "line 17" in status["error"]["message"]
    assert len(team.list("jobs")) == 1


def test_an_unknown_model_fails_at_once_with_the_catalog(team: Kubectl, operator: Operator) -> None:
    team.apply(finetune("tone", model="gpt5"))
    status = team.wait_state("tone", "failed")
    assert "the catalog has ada" in status["message"]
    assert team.list("jobs") == []


def test_a_further_attempt_costs_three_reads_and_six_writes(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    team.apply(finetune("tone", **TWO_NODES))
    prepare(kubelet)
    pods = kubelet.start_pods(kubelet.job("-a1"))
    kubelet.ready(*pods)
    team.wait_state("tone", "running")
    log = Path(control_plane.audit_log)
    until(lambda: writes_by(log, operator.user, team.namespace)["create events"] == 2, 10)
    before, start = writes_by(log, operator.user, team.namespace), log.stat().st_size
    kubelet.end(pods[1], 137)
    pods = kubelet.start_pods(kubelet.job("-a2"))
    team.wait_state("tone", "pending")
    kubelet.ready(*pods)
    team.wait_state("tone", "running")
    until(lambda: not [job for job in team.list("jobs") if is_a1(job)], 10)
    assert reads_by(log, operator.user, team.namespace, start) == LIVE_LOOK
    extra = writes_by(log, operator.user, team.namespace) - before
    assert extra == {
        "create jobs": 1,
        "create services": 1,
        "delete jobs": 1,
        "patch finetunes/status": 2,
    }


def test_a_suspension_and_a_cancellation_cost_three_reads_each_and_a_resumption_none(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    team.apply(finetune("tone", **TWO_NODES))
    prepare(kubelet)
    kubelet.job("-a1")
    log = Path(control_plane.audit_log)

    def costs(change: str, is_done: Callable[[], object]) -> Counter[str]:
        start = log.stat().st_size
        team("patch", "finetune", "tone", "--type=merge", "-p", f'{{"spec": {change}}}')
        until(is_done, 20, operator.logs)
        time.sleep(2)  # nothing follows
        return reads_by(log, operator.user, team.namespace, start)

    def has_jobs(*endings: str) -> bool:
        found = [job["metadata"]["name"].rpartition("-")[2] for job in team.list("jobs")]
        return sorted(found) == sorted(endings)

    assert costs('{"suspend": true}', lambda: has_jobs("prepare")) == LIVE_LOOK
    assert costs('{"suspend": false}', lambda: has_jobs("prepare", "a2")) == {}
    assert costs('{"cancel": true}', has_jobs) == LIVE_LOOK
    assert team.status("tone")["state"] == "cancelled"


def is_a1(job: dict) -> bool:  # type: ignore[type-arg]
    """Whether it is attempt 1 and not being deleted: there is no garbage collector."""
    name = str(job["metadata"]["name"])
    return name.endswith("-a1") and "deletionTimestamp" not in job["metadata"]


def test_a_foreign_job_with_our_name_is_left_alone_and_reported(
    team: Kubectl, operator: Operator
) -> None:
    operator.stop()
    team.apply(finetune("tone", **TWO_NODES))
    uid = team.get("finetune", "tone")["metadata"]["uid"]
    name = f"ft-tone-{uid[:8]}-prepare"
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}
    team.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"template": {"spec": pod}},
        }
    )
    operator.start()
    status = team.wait_state("tone", "failed")
    assert status["error"]["code"] == "ForeignObject"
    assert name in status["error"]["message"]
    assert team.get("job", name)["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox"


def test_deletion_never_waits_for_the_operator(team: Kubectl, operator: Operator) -> None:
    team.apply(finetune("tone", **TWO_NODES))
    until(lambda: team.list("jobs"), 20)
    operator.kill()
    assert "finalizers" not in team.get("finetune", "tone")["metadata"]
    team("delete", "finetune", "tone", "--timeout=5s")


def test_probes_and_metrics_answer(team: Kubectl, operator: Operator) -> None:
    assert operator.fetch(operator.port, "/healthz") == "ok"
    team.apply(finetune("tone", model="gpt5"))
    team.wait_state("tone", "failed")
    gauge = f'finetune_jobs{{namespace="{team.namespace}",state="failed"}} 1.0'
    until(lambda: gauge in operator.metrics(), 10)
    assert 'finetune_jobs_total{reason="UnknownModel",result="failed"} 1.0' in operator.metrics()


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    from finetune_operator.settings import Settings
    from finetune_web.settings_file import load_settings

    path = tmp_path / "settings.yaml"
    path.write_text("prepareImage: x\nmodels: []\nruntimes: []\nmodel: x\n")
    with pytest.raises(ValueError, match=r"settings.yaml, runtimes"):
        load_settings(path, Settings)
