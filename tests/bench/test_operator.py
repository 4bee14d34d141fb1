"""What the operator's benchmark makes of an audit log, without a control plane."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.operator import plot, sections
from bench.operator.audit import of_child, reads, requests, writes
from bench.operator.control_plane import MODEL, stages_text
from bench.operator.objects import POISON
from bench.operator.runs import Run
from bench.operator.timelines import (
    Timeline,
    percentile,
    timelines_of_operator,
    timelines_of_script,
)
from bench.table import Line
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.outcome import Outcome
from finetune_operator.core.decide import decide
from tests.support.objects import World, a_finetune

OURS, ADMIN = "system:serviceaccount:bench:finetune-operator", "admin"
BEGIN = datetime(2026, 11, 21, 12, tzinfo=UTC)
UID = "0a1b2c3d"


class Log:
    """An audit log as the API server writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "audit.log"

    def add(
        self,
        second: float,
        user: str,
        verb: str,
        resource: str,
        name: str,
        agent: str = "Python",
        query: str = "",
    ) -> None:
        plural, _, subresource = resource.partition("/")
        at = (BEGIN + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
        what = {"resource": plural, "namespace": "bench", "name": name}
        event = {
            "stage": "ResponseComplete",
            "verb": verb,
            "user": {"username": user},
            "userAgent": f"{agent}/3.11 aiohttp",
            "requestURI": f"/apis/{resource}?{query}",
            "objectRef": what | ({"subresource": subresource} if subresource else {}),
            "stageTimestamp": at,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def timeline(self, name: str, start: float, *, is_scripted: bool = False) -> None:
        """Created, its Job 1 s later, trained after 5 s and ended after 6 s."""
        if not is_scripted:
            self.add(start, ADMIN, "create", "finetunes", name)
            self.add(start + 0.5, OURS, "get", "finetunes", name)
        self.add(start + 1, OURS, "create", "jobs", f"ft-{name}-{UID}-prepare")
        self.add(start + 3, OURS, "create", "jobs", f"ft-{name}-{UID}-a1")
        for second, index in ((4, 0), (4, 1), (5, 0), (5.5, 1)):  # ready, then ended
            pod = f"ft-{name}-{UID}-a1-{index}-x7k2p"
            self.add(start + second, ADMIN, "patch", "pods/status", pod, "kwok")
        self.add(start + 6, OURS, "create", "models", f"ada-ft-team-tone-{name}")
        if not is_scripted:
            self.add(start + 6, OURS, "patch", "finetunes/status", name)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"ft-tone-1-{UID}-prepare", ("tone-1", "prepare")),
        (f"ft-tone-1-{UID}-prepare-x7k2p", ("tone-1", "prepare")),
        (f"ft-tone-1-{UID}-a1", ("tone-1", "a1")),
        (f"ft-a1-tone-{UID}-a1-0-x7k2p", ("a1-tone", "a1-0-x7k2p")),
    ],
)
def test_a_childs_name_tells_whose_it_is(name: str, found: tuple[str, str]) -> None:
    assert of_child(name) == found


def test_a_life_is_read_from_the_audit_log(log: Log) -> None:
    log.timeline("tone-0", 0)
    log.timeline("tone-1", 2)
    timelines = timelines_of_operator(requests(log.path, "bench"), OURS)
    begin = BEGIN.timestamp()
    assert timelines["tone-0"] == Timeline(begin, begin + 1, begin + 5, begin + 6)
    assert timelines["tone-1"].created == begin + 2
    assert all(timeline.is_whole for timeline in timelines.values())


def test_the_timelines_of_the_script_all_start_with_its_first_request(log: Log) -> None:
    log.timeline("script-0", 0, is_scripted=True)
    log.timeline("script-1", 2, is_scripted=True)
    timelines = timelines_of_script(requests(log.path, "bench"), OURS)
    begin = BEGIN.timestamp()
    assert timelines["script-1"] == Timeline(begin + 1, begin + 3, begin + 7, begin + 8)
    assert timelines["script-0"].created == begin + 1


def test_a_life_without_an_end_is_not_whole(log: Log) -> None:
    log.add(0, ADMIN, "create", "finetunes", "tone-0")
    assert not timelines_of_operator(requests(log.path, "bench"), OURS)["tone-0"].is_whole


def test_requests_are_counted_by_user_from_an_offset(log: Log) -> None:
    log.timeline("tone-0", 0)
    offset = log.path.stat().st_size
    log.timeline("tone-1", 0)
    log.add(9, OURS, "watch", "pods", "")
    log.add(9, OURS, "list", "finetunes", "", query="limit=250")  # a watch that opens
    found = list(requests(log.path, "bench", offset))
    expected = {"create jobs": 2, "create models": 1, "patch finetunes/status": 1}
    assert writes(found, OURS) == Counter(expected)
    assert reads(found, OURS) == Counter({"get finetunes": 1})


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile([3, 1, 2], share) for share in (0, 0.5, 0.99, 1)] == [1, 2, 3, 3]


def a_run(log: Log, ends: float = 6, size: int = 4, **costs: Any) -> Run:
    log.path.unlink(missing_ok=True)
    for number in range(size):
        log.timeline(f"tone-{number}", number * 3)
    found = list(requests(log.path, "bench"))
    timelines = timelines_of_operator(found, OURS)
    values = {"seconds": ends, "apiserver_seconds": 0.4, "cpu_seconds": 0.2, "peak_mib": 90.0}
    counted = {"writes": writes(found, OURS), "reads": reads(found, OURS)}
    return Run(timelines, **(counted | values | costs))


def test_completions_are_judged_while_others_wait_to_start(log: Log) -> None:
    run = a_run(log)
    last_start = 3 * 3 + 1
    ended_before = [0, 3]  # trained at 5 and 8, before the last Job was made at 10
    assert last_start == 10
    assert sections.completions(run) == [1.0] * len(ended_before)
    assert sections.completions(a_run(log, size=1)) == [1.0], "no FineTune waits: all count"


def lines_of(log: Log, **costs: Any) -> dict[str, Line]:
    script = a_run(log, ends=6.0)
    found = sections.burst_lines(
        4, [script], [a_run(log, **{"ends": 7.5, "cpu_seconds": 0.1, **costs})]
    )
    return {line.name: line for line in found}


def test_a_burst_is_compared_with_the_script(log: Log) -> None:
    lines = lines_of(log)
    assert (lines["all ended"].ratio, lines["all ended"].is_met) == (1.25, True)
    assert lines["created to first Job, p50"].ratio == pytest.approx(1 / 6)
    assert lines["created to first Job, p50"].is_met
    assert lines["created to first Job, p99"].is_met is None
    assert lines["CPU per FineTune"].values == [25.0]
    assert lines["writes per FineTune"].values == [4.0]
    assert (lines["reads per FineTune"].values, lines["reads per FineTune"].is_met) == ([1.0], True)
    assert lines["the API server's CPU per FineTune"].ratio == 1.0


@pytest.mark.parametrize(
    ("costs", "name"),
    [
        ({"ends": 8.5}, "all ended"),
        ({"cpu_seconds": 0.125}, "CPU per FineTune"),
        ({"peak_mib": 121.0}, "peak memory"),
        ({"apiserver_seconds": 0.65}, "the API server's CPU per FineTune"),
        ({"reads": Counter({"get finetunes": 13})}, "reads per FineTune"),
    ],
)
def test_a_missed_target_is_reported(log: Log, costs: dict[str, Any], name: str) -> None:
    assert lines_of(log, **costs)[name].is_met is False


def test_the_growth_of_memory_is_that_of_a_line_through_all_waves() -> None:
    assert sections.slope([100.0, 101.0, 102.0]) == pytest.approx(1)
    assert sections.slope([100.0, 108.0, 100.0, 108.0, 100.0]) == pytest.approx(0)


def test_the_pods_end_with_what_the_operator_can_read() -> None:
    stages = {stage["metadata"]["name"]: stage for stage in yaml.safe_load_all(stages_text())}
    templates = {
        name: stage["spec"]["next"].get("statusTemplate", "") for name, stage in stages.items()
    }
    prepared = Outcome.parse(templates["pod-prepared"].split("`")[1])
    assert prepared is not None and prepared.prepared is not None
    message = templates["pod-trained"].split("`")[1].replace("%%", "%")
    for number, text in enumerate(("tone-7", "bench", UID), 1):  # the arguments of Go's printf
        message = message.replace(f"%[{number}]s", text)
    trained = Outcome.parse(message)
    assert trained is not None and trained.trained is not None
    assert trained.trained.fine_tuned_model == f"{MODEL}-tone-7"
    assert trained.trained.model_uri == f"s3://bucket/out/bench/tone-7-{UID}/model"


def test_no_reconcile_gets_through_a_poisoned_status() -> None:
    world = World(a_finetune(suspend=True, pendingDeadlineSeconds=9))
    world.until_training()
    assert world.status.reason == "Suspended"
    poisoned = FineTuneStatus.model_validate(world.status.to_dict() | POISON)
    world.finetune = world.finetune.replace(status=poisoned)
    with pytest.raises(ValueError, match="not a time"):
        decide(world.observe(), world.settings, world.now)


@pytest.mark.slow  # matplotlib takes seconds
def test_the_plot_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(plot, "RESULTS", tmp_path)
    curves = {4: {name: [share / 10 for share in range(101)] for name in plot.STYLES}}
    path = Path(plot.draw(list(lines_of(log).values()), curves))
    assert path.read_bytes().startswith(b"\x89PNG")
