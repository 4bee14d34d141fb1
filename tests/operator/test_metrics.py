"""The metrics that a status write changes, without a cluster."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.outcome import ProgressReport
from finetune_operator.core.key import Key
from finetune_operator.core.metrics import OTHER, REASONS, Figures, known_reason, measure
from finetune_operator.telemetry import reconcile_metrics
from finetune_operator.telemetry.request_metrics import REGISTRY, count_write
from finetune_operator.telemetry.state_collector import PROGRESS, Known, StateCollector
from tests.support.objects import NOW, World, a_finetune, failed, progress, trained

GPUS = {"resources": {"nodes": 2, "gpusPerNode": 4}}


def write(world: World, report: ProgressReport | None = None) -> Figures:
    """One reconcile of the world, measured."""
    before, at = world.finetune, world.now
    world.step()
    return measure(before, world.status, at, report or world.progress)


def life(world: World) -> list[Figures]:
    """Every write until nothing changes."""
    found = []
    for _ in range(10):
        writes = world.status_writes
        figures = write(world)
        if world.status_writes == writes:
            return found
        found.append(figures)
    raise AssertionError("it never settles")


def test_a_success_is_counted_once_with_its_time_tokens_and_gpu_seconds() -> None:
    world = World(a_finetune(**GPUS)).until_running()
    world.now = NOW + timedelta(seconds=1000)
    world.end_pod("a1", 0, 0, trained())
    (figures,) = [found for found in life(world) if found.result]
    assert (figures.result, figures.reason) == ("succeeded", "Succeeded")
    assert figures.duration == 1000
    assert figures.trained_tokens == 10000
    assert figures.gpu_seconds == world.status.gpu_seconds == 8 * 1000
    assert figures.wasted == ()
    assert life(world) == []


def test_a_recorded_event_is_not_counted_again() -> None:
    world = World(a_finetune(**GPUS)).until_running()
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    assert measure(world.finetune, world.status, world.now) == Figures(reason="Succeeded")


@pytest.mark.parametrize(
    ("report", "share"),
    [
        (None, 1.0),
        (progress(step=0), 1.0),
        (progress(step=100, steps=200), 1.0),
        (progress(step=100, steps=200, checkpoint_step=75), 0.25),
        (progress(step=100, steps=200, checkpoint_step=100), 0.0),
        (progress(step=100, steps=200, checkpoint_step=90, resumed_from_step=80), 0.5),
        (progress(step=100, steps=200, checkpoint_step=None, resumed_from_step=80), 1.0),
        (progress(step=100, steps=200, checkpoint_step=75, attempt=2), 1.0),
    ],
)
def test_a_restart_wastes_the_work_since_the_last_checkpoint(
    report: ProgressReport | None, share: float
) -> None:
    world = World(a_finetune(**GPUS)).until_running()
    world.progress = report
    world.now = NOW + timedelta(seconds=100)
    world.end_pod("a1", 1, 1, failed("RankCrashed"))
    (figures,) = [found for found in life(world) if found.restarts]
    assert figures.restarts == ("RankCrashed",)
    assert figures.gpu_seconds == 800
    assert sum(seconds for _, seconds in figures.wasted) == pytest.approx(800 * share)
    assert {reason for reason, _ in figures.wasted} <= {"RankCrashed"}


def test_a_permanent_failure_wastes_its_whole_attempt() -> None:
    world = World(a_finetune(maxRestarts=0, **GPUS)).until_running()
    world.progress = progress(step=40, checkpoint_step=40)
    world.now = NOW + timedelta(seconds=100)
    world.end_pod("a1", 0, 65, failed("NaNLoss"))
    (figures,) = [found for found in life(world) if found.result]
    assert (figures.result, figures.reason) == ("failed", "NaNLoss")
    assert figures.wasted == (("NaNLoss", 800),)


def test_a_cancelled_attempt_that_ran_holds_its_gpus_until_then() -> None:
    world = World(a_finetune(**GPUS)).until_running()
    turned = next(item for item in world.status.conditions if item.type == "Running")
    world.now = datetime.fromisoformat(turned.last_transition_time) + timedelta(seconds=50)
    world.progress = progress(step=10, checkpoint_step=5)
    spec = world.finetune.spec.model_copy(update={"cancel": True})
    world.finetune = world.finetune.replace(spec=spec)
    (figures,) = [found for found in life(world) if found.result]
    assert (figures.result, figures.reason) == ("cancelled", "Cancelled")
    assert figures.gpu_seconds == world.status.gpu_seconds > 8 * 50
    assert figures.wasted == (("Cancelled", figures.gpu_seconds / 2),)


def test_a_suspension_wastes_nothing_and_its_end_counts_as_a_restart_of_that_reason() -> None:
    world = World(a_finetune(**GPUS)).until_running()
    world.progress = progress(step=10)
    for suspend in (True, False):
        spec = world.finetune.spec.model_copy(update={"suspend": suspend})
        world.finetune = world.finetune.replace(spec=spec)
        found = life(world)
        assert not any(figures.wasted for figures in found)
    assert [figures.restarts for figures in found if figures.restarts] == [("Suspended",)]
    assert "suspended" in {stage for figures in found for stage, _ in figures.phases}


def test_a_new_operator_takes_the_start_of_a_stage_from_the_status() -> None:
    world = World()
    world.settle()
    started = datetime.fromisoformat(world.status.started_at)
    after = world.status.replace(stage="starting")
    figures = measure(world.finetune, after, started + timedelta(seconds=30))
    assert figures.phases == (("validating", 30.0),)


def test_the_start_of_an_observed_stage_is_exact() -> None:
    world = World().until_running()
    since = world.now - timedelta(seconds=7)
    after = world.status.replace(stage="publishing")
    figures = measure(world.finetune, after, world.now, None, since)
    assert figures.phases == (("training", 7.0),)


@pytest.mark.parametrize("text", ["", None, "{}", "rm -rf", "invaliddata", "x" * 128])
def test_an_unknown_reason_is_counted_as_other(text: str | None) -> None:
    assert known_reason(text) == OTHER
    assert OTHER not in REASONS
    assert len(REASONS) > 20


def exposition(states: StateCollector) -> str:
    registry = CollectorRegistry()
    registry.register(states)
    return generate_latest(registry).decode()


def test_progress_is_shown_while_it_runs_and_gone_when_it_ends() -> None:
    states, key = StateCollector(), Key("team", "tone")
    report = progress(training_loss=1.5, tokens_per_second=900.0, learning_rate=1e-5)
    states.remember(key, Known("running", report=report))
    text = exposition(states)
    assert 'finetune_job_training_loss{name="tone",namespace="team"} 1.5' in text
    assert 'finetune_job_progress_ratio{name="tone",namespace="team"} 0.2' in text
    assert 'finetune_job_tokens_per_second{name="tone",namespace="team"} 900.0' in text
    states.remember(key, Known("running"))  # a poll without an answer
    assert 'finetune_job_training_loss{name="tone",namespace="team"} 1.5' in exposition(states)
    states.remember(key, Known("succeeded"))
    text = exposition(states)
    assert "tone" not in text
    assert 'finetune_jobs{namespace="team",state="succeeded"} 1.0' in text
    states.forget(key)
    assert "team" not in exposition(states)


def test_a_finetune_that_the_sweep_does_not_find_is_forgotten() -> None:
    world = World().until_running()
    reconcile_metrics.observe(world.finetune, world.status, progress())
    series = 'finetune_jobs{namespace="team",state="running"} 1.0'
    assert series in generate_latest(REGISTRY).decode()
    reconcile_metrics.keep_only({Key("team", "tone")})
    assert series in generate_latest(REGISTRY).decode()
    reconcile_metrics.keep_only({Key("team", "another")})
    assert series not in generate_latest(REGISTRY).decode()


def test_the_age_of_the_last_step_is_shown_only_while_it_trains() -> None:
    states, key = StateCollector(), Key("team", "tone")
    series = 'finetune_job_last_step_age_seconds{name="tone",namespace="team"}'
    states.remember(key, Known("running", report=progress(last_step_age=7)))
    assert f"{series} 7.0" in exposition(states)
    states.remember(key, Known("running", report=progress(stage="evaluating", last_step_age=7)))
    assert series not in exposition(states)


def test_the_series_of_a_thousand_settled_finetunes_are_a_handful() -> None:
    states = StateCollector()
    for number in range(1000):
        states.remember(Key("team", f"tone-{number}"), Known("succeeded"))
    lines = [line for line in exposition(states).splitlines() if not line.startswith("#")]
    assert lines == ['finetune_jobs{namespace="team",state="succeeded"} 1000.0']


def test_the_oldest_pending_finetune_is_reported_for_each_namespace() -> None:
    states = StateCollector()
    for number, hours in enumerate((1, 3, 2)):
        since = datetime.now(UTC) - timedelta(hours=hours)
        states.remember(Key("team", f"tone-{number}"), Known("pending", since))
    (value,) = [
        float(line.split()[-1])
        for line in exposition(states).splitlines()
        if line.startswith("finetune_oldest_pending_seconds{")
    ]
    assert 3 * 3600 <= value < 3 * 3600 + 60


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_write_reaches_the_registry_with_closed_labels() -> None:
    world = World(a_finetune(**GPUS)).until_running()
    ends = {"result": "failed", "reason": OTHER}
    jobs, gpu = sample("finetune_jobs_total", **ends), sample("finetune_gpu_seconds_total")
    before = world.finetune
    world.now = NOW + timedelta(seconds=100)
    world.end_pod("a1", 0, 65, failed("evil{} \n reason"))
    world.settle()
    after: FineTuneStatus = world.status.replace(state="failed", reason="evil{} \n reason")
    reconcile_metrics.observe(before, before.status, None)
    reconcile_metrics.count_write(before, after, None)
    assert sample("finetune_jobs_total", **ends) == jobs + 1
    assert sample("finetune_gpu_seconds_total", namespace="team") > gpu
    assert "evil" not in generate_latest(REGISTRY).decode()


def test_every_metric_has_a_unit_and_no_metric_is_duplicated() -> None:
    text = generate_latest(REGISTRY).decode()
    types = [line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE")]
    found = [name for name, _ in types]
    assert len(found) == len(set(found))
    for name, kind in types:
        assert (kind == "counter") == name.endswith("_total"), name
        if kind == "histogram":
            assert name.endswith("_seconds")
    assert {f"finetune_job_{name}" for name in PROGRESS} <= set(found)


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("POST", "/apis/batch/v1/namespaces/a/jobs", ("post", "jobs")),
        ("DELETE", "/apis/batch/v1/namespaces/a/jobs/x", ("delete", "jobs")),
        ("POST", "/api/v1/namespaces/a/events", ("post", "events")),
        (
            "PATCH",
            "/apis/finetune.dev/v1alpha1/namespaces/a/finetunes/x/status",
            ("patch", "finetunes/status"),
        ),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", ("post", "tokenreviews")),
    ],
)
def test_a_write_is_counted_by_verb_and_resource(
    method: str, path: str, labels: tuple[str, str]
) -> None:
    named = {"verb": labels[0], "resource": labels[1]}
    before = sample("finetune_operator_api_writes_total", **named)
    count_write(method, path)
    assert sample("finetune_operator_api_writes_total", **named) == before + 1


def test_a_finetune_from_a_clock_ahead_has_no_negative_time() -> None:
    finetune: FineTune = World().until_running().finetune
    (attempt,) = finetune.status.attempts
    ended = attempt.replace(ended_at="2020-01-01T00:00:00Z", reason="Stalled")
    after = finetune.status.replace(state="failed", reason="Stalled", attempts=[ended])
    figures = measure(finetune, after, NOW - timedelta(hours=1))
    assert figures.duration == 0
    assert figures.gpu_seconds == 0
