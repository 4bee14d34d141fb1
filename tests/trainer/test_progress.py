import errno
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from finetune_api.outcome import EpochMetrics, ProgressReport
from finetune_trainer.progress import ProgressTracker, _DualStackServer, serve

Server = tuple[ProgressTracker, str]


@pytest.fixture
def server() -> Iterator[Server]:
    progress = ProgressTracker(
        attempt=2, starting_detail=lambda: "downloading the base model: 34 %"
    )
    running = serve(progress, port=0)
    yield progress, f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_before_training_the_pod_is_not_ready_and_reports_its_work(server: Server) -> None:
    progress, url = server
    status, body = get(f"{url}/progress")
    report = ProgressReport.model_validate_json(body)
    assert status == 503
    assert (report.stage, report.detail) == ("starting", "downloading the base model: 34 %")
    progress.update(detail="looking for a checkpoint")
    assert json.loads(get(f"{url}/progress")[1])["detail"] == "looking for a checkpoint"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_pod_answers_on_ipv4_and_on_ipv6(server: Server, host: str) -> None:
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("the machine has no IPv6")
    port = server[1].rpartition(":")[2]
    assert get(f"http://{host}:{port}/progress")[0] == 503


@pytest.mark.parametrize("is_off", ["in the kernel", "by a setting"])
def test_the_pod_answers_on_ipv4_where_ipv6_is_off(
    is_off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: is_off == "by a setting")
    monkeypatch.setattr(_DualStackServer, "server_bind", fails)
    running = serve(ProgressTracker(attempt=1, starting_detail=str), port=0)
    assert get(f"http://127.0.0.1:{running.server_address[1]}/progress")[0] == 503
    running.shutdown()
    running.server_close()


def test_an_address_that_is_in_use_is_an_error(server: Server) -> None:
    port = int(server[1].rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        serve(ProgressTracker(attempt=1, starting_detail=str), port)


def test_from_the_start_of_training_the_pod_is_ready(server: Server) -> None:
    progress, url = server
    progress.start_training()
    epoch = EpochMetrics(epoch=1, step=10, training_loss=1.5)
    progress.update(stepped=True, step=10, steps=20, training_loss=1.25, completed_epochs=[epoch])
    for stage in ("training", "evaluating", "publishing"):
        progress.update(stage=stage)
        status, body = get(f"{url}/progress")
        report = ProgressReport.model_validate_json(body)
        assert (status, report.stage, report.step, report.attempt) == (200, stage, 10, 2)
        assert report.completed_epochs == [epoch]
        assert report.last_step_age < 5


def test_prometheus_reads_only_measured_gauges(server: Server) -> None:
    progress, url = server
    progress.start_training()
    progress.update(step=3, training_loss=1.25, tokens_per_second=1234.5)
    progress.gauge(gradient_norm=0.5)
    status, body = get(f"{url}/metrics")
    lines = body.splitlines()
    assert status == 200
    assert "finetune_step 3.0" in lines
    assert "finetune_training_loss 1.25" in lines
    assert "finetune_tokens_per_second 1234.5" in lines
    assert "finetune_gradient_norm 0.5" in lines
    assert "# TYPE finetune_training_loss gauge" in lines
    assert "finetune_validation_loss" not in body


def test_other_paths_are_not_found(server: Server) -> None:
    assert get(f"{server[1]}/")[0] == 404
