"""The operator's metrics as Prometheus reads them, with a real API server."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.controlplane import ControlPlane
from finetune_operator.core.plan import stamp
from tests.integration.conftest import Kubelet, Operator, serve_progress
from tests.support.audit import writes_by
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import prepared, progress, trained

pytestmark = pytest.mark.integration

ONE_NODE = {"model": "ada", "resources": {"nodes": 1, "gpusPerNode": 2}}
RANK_0 = "127.0.0.77"  # of this test alone, on every machine


@pytest.fixture
def rank_0() -> Iterator[dict[str, Any]]:
    """The progress report of rank 0 on its own address. A test can change it."""
    report = progress(training_loss=1.25, tokens_per_second=800.0, checkpoint_step=5)
    with serve_progress(RANK_0, report.to_dict()) as answer:
        yield answer


def run_until_training(team: Kubectl, kubelet: Kubelet) -> str:
    team.apply(finetune("tone", **ONE_NODE))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    kubelet.end(pod, 0, prepared().to_termination_message())
    (pod,) = kubelet.start_pods(kubelet.job("-a1"))
    kubelet.ready(pod)
    started = datetime.now(UTC) - timedelta(seconds=100)
    running = {"podIP": RANK_0, "podIPs": [{"ip": RANK_0}], "startTime": stamp(started)}
    team.patch_status("pod", pod, running)
    team.wait_state("tone", "running")
    return pod


def test_progress_comes_and_goes_and_the_end_is_counted_once(
    team: Kubectl, operator: Operator, kubelet: Kubelet, rank_0: dict[str, object]
) -> None:
    pod = run_until_training(team, kubelet)
    labels = f'{{name="tone",namespace="{team.namespace}"}}'
    until(lambda: f"finetune_job_training_loss{labels} 1.25" in operator.metrics(), 10)
    assert f"finetune_job_progress_ratio{labels} 0.2" in operator.metrics()
    rank_0["trainingLoss"] = 0.5
    until(lambda: f"finetune_job_training_loss{labels} 0.5" in operator.metrics(), 10)

    kubelet.end(pod, 0, trained().to_termination_message())
    team.wait_state("tone", "succeeded")
    ended = 'finetune_jobs_total{reason="Succeeded",result="succeeded"}'
    until(lambda: f"{ended} 1.0" in operator.metrics(), 10)
    text = operator.metrics()
    assert "finetune_job_training_loss{" not in text
    seconds = team.status("tone")["gpuSeconds"]
    of_team = f'{{namespace="{team.namespace}"}}'
    assert seconds >= 2 * 100  # two GPUs
    assert f"finetune_gpu_seconds_total{of_team} {seconds:.1f}" in text
    assert f"finetune_trained_tokens_total{of_team} 10000.0" in text
    assert 'finetune_job_duration_seconds_count{result="succeeded"} 1.0' in text
    for stage in ("validating", "starting", "training"):
        assert f'finetune_job_stage_seconds_count{{stage="{stage}"}} 1.0' in text

    # A new process finds the end recorded.
    operator.kill()
    operator.start()
    until(lambda: 'state="succeeded"} 1.0' in operator.metrics(), 10)
    assert f"{ended} 0.0" in operator.metrics()
    assert "finetune_gpu_seconds_total{" not in operator.metrics()


def test_the_counted_writes_are_those_of_the_audit_log(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    pod = run_until_training(team, kubelet)
    kubelet.end(pod, 0, trained().to_termination_message())
    team.wait_state("tone", "succeeded")
    until(lambda: len(team.list("events")) >= 6, 10)
    verbs = {"post": "create", "patch": "patch", "delete": "delete"}
    pattern = r'finetune_operator_api_writes_total\{resource="(.+)",verb="(.+)"\} (\d+)\.0'
    counted = {
        f"{verbs[verb]} {resource}": int(count)
        for resource, verb, count in re.findall(pattern, operator.metrics())
    }
    log = Path(control_plane.audit_log)
    assert counted == dict(writes_by(log, operator.user, team.namespace))


def test_watches_and_the_queue_are_told(team: Kubectl, operator: Operator) -> None:
    text = operator.metrics()
    for resource in ("finetunes", "jobs", "pods"):
        assert f'finetune_operator_watch_up{{resource="{resource}"}} 1.0' in text
    assert "finetune_operator_queue_length 0.0" in text
    team.apply(finetune("tone", model="gpt5"))
    team.wait_state("tone", "failed")
    until(lambda: _age(operator) < 30, 10)
    assert "python_gc" not in text


def _age(operator: Operator) -> float:
    pattern = r'finetune_operator_watch_age_seconds\{resource="finetunes"\} (\S+)'
    found = re.search(pattern, operator.metrics())
    assert found
    return float(found[1])


def test_with_token_review_only_who_may_reads_the_metrics(
    team: Kubectl, operator: Operator
) -> None:
    operator.stop()
    path = operator.folder / "settings.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"metricsTokenReview": True}))
    operator.start()
    assert _status(operator, None) == 401
    for account in ("reader", "stranger"):
        team("create", "serviceaccount", account)
    tokens = {name: team("create", "token", name).strip() for name in ("reader", "stranger")}
    assert _status(operator, tokens["reader"]) == 503  # the namespaced Role may not ask

    role = f"{team.namespace}-reviews"
    reader = f"{team.namespace}-reader"
    try:
        team("create", "clusterrolebinding", role, "--clusterrole=system:auth-delegator",
             f"--serviceaccount={team.namespace}:finetune-operator")  # fmt: skip
        team("create", "clusterrole", reader, "--verb=get", "--non-resource-url=/metrics")
        team("create", "clusterrolebinding", reader, f"--clusterrole={reader}",
             f"--serviceaccount={team.namespace}:reader")  # fmt: skip
        until(lambda: _status(operator, tokens["reader"]) == 200, 10)
        assert _status(operator, tokens["stranger"]) == 403
        assert _status(operator, "nobody's") == 401
        assert tokens["reader"] not in operator.logs()
    finally:
        team("delete", "clusterrolebinding", role, reader, "--ignore-not-found")
        team("delete", "clusterrole", reader, "--ignore-not-found")


def _status(operator: Operator, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{operator.metrics_port}/metrics"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as got:
            return int(got.status)
    except urllib.error.HTTPError as error:
        return error.code
