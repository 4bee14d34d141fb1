"""The sections of the benchmark. Each measures one aspect and yields lines of the table."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.operator import audit
from bench.operator.control_plane import NAMESPACE
from bench.operator.objects import POISON
from bench.operator.operator_process import OperatorProcess
from bench.operator.plot import Curves
from bench.operator.runs import (
    Run,
    burst,
    create,
    in_state,
    is_empty,
    planes,
    run_operator,
    run_script,
    succeeded,
    wait,
    wait_for_silence,
)
from bench.operator.timelines import Timeline, percentile
from bench.table import Line
from finetune_api.wire import JsonObject
from finetune_operator.handlers.watches import SWEEP_INTERVAL
from tests.support.kubectl import Kubectl

OBJECTS, STATUS_WRITES, EVENTS, EPOCHS = 4, 4, 4, 2  # the budget; the pods report two epochs
READS = 3  # one live look
QUARTER, TENTH = "<= 0.25", "<= 0.1"  # shares of the time in which the script ends all
IDLE_SECONDS = 60
MANY = 1000
FEW = 200  # runs of up to this many at once are short enough to repeat
SETTLED = 10_000
CONCURRENT = 2000
SWEEP_SECONDS = 60
PER_SECOND = round(1 / SWEEP_INTERVAL)
WAVES, WARM_WAVES = 20, 3
NEIGHBORS = 100  # FineTunes next to a poisoned one or thousands of settled ones


@dataclass
class Settings:
    """The extent of the measurements."""

    sizes: list[int]
    rounds: int = 3
    settled: int = SETTLED
    concurrent: int = CONCURRENT
    waves: int = WAVES
    wave_size: int = MANY
    idle_seconds: float = IDLE_SECONDS
    say: Callable[[str], None] = print
    curves: dict[int, Curves] = field(default_factory=dict)  # by size: the last round, for the plot


def writes(settings: Settings) -> Iterator[Line]:
    """Count the writes for one FineTune, in an idle minute, and during a restart."""
    with planes() as (plane, team, operator):
        operator.start()
        settings.say("writes: one FineTune")
        run = burst(plane, team, operator, "one", 1)
        time.sleep(3)  # Events and a late reconcile follow the end
        counted = audit.writes(audit.requests(plane.audit_log, NAMESPACE), operator.user)
        objects = sum(counted[f"create {kind}"] for kind in ("jobs", "services", "models"))
        statuses, events = counted["patch finetunes/status"], counted["create events"]
        part = "writes"
        yield _exact(part, "objects", objects, OBJECTS)
        yield _exact(part, "status writes", statuses, STATUS_WRITES)
        yield _exact(part, "Events, including one per epoch", events, EVENTS + EPOCHS)
        yield _exact(part, "anything else", counted.total() - objects - statuses - events, 0)
        reads = float(run.reads.total())
        yield Line(part, "reads", [reads], "requests", reads, f"<= {READS}")
        settings.say(f"writes: {settings.idle_seconds:.0f} s without changes")
        begin = plane.audit_log.stat().st_size
        cpu = operator.cpu_seconds()
        time.sleep(settings.idle_seconds)
        yield _exact(part, "while idle", _since(plane.audit_log, begin, operator), 0)
        spent = 100 * (operator.cpu_seconds() - cpu) / settings.idle_seconds
        yield Line(part, "CPU while idle", [spent], "%")
        operator.kill()
        begin = plane.audit_log.stat().st_size
        operator.start()
        wait(lambda: succeeded(operator) == 1, operator, team)
        time.sleep(3)
        yield _exact(part, "on a restart", _since(plane.audit_log, begin, operator), 0)


def _since(log: object, begin: int, operator: OperatorProcess) -> int:
    return audit.writes(audit.requests(log, NAMESPACE, begin), operator.user).total()  # type: ignore[arg-type]


def _exact(part: str, name: str, count: int, budget: int) -> Line:
    return Line(part, name, [float(count)], "writes", float(count), f"<= {budget}")


def bursts(settings: Settings) -> Iterator[Line]:
    """Compare many FineTunes at once with the script."""
    for size in settings.sizes:
        scripts: list[Run] = []
        operators: list[Run] = []
        rounds = settings.rounds if size <= FEW else 1
        for number in range(rounds):
            for name, runs, run in (
                ("the script", scripts, run_script),
                ("the operator", operators, run_operator),
            ):
                settings.say(f"{size} at once, round {number + 1} of {rounds}: {name}")
                runs.append(run(size))
                settings.say(f"reads: {dict(runs[-1].reads)}")
        settings.curves[size] = {
            **_curves("script", scripts[-1]),
            **_curves("operator", operators[-1]),
        }
        yield from burst_lines(size, scripts, operators)


def burst_lines(size: int, scripts: list[Run], operators: list[Run]) -> Iterator[Line]:
    part = f"{size} at once"
    floor = [run.seconds for run in scripts]
    whole = statistics.median(floor)
    ours = [run.seconds for run in operators]
    yield Line(part, "the script: all ended", floor, "s")
    yield Line(part, "all ended", ours, "s", statistics.median(ours) / whole, _slowdown(size))
    for name, measure, judged in (
        ("created to first Job", starts, {0.5}),
        ("trained to ended among creations", completions, {0.5, 0.99}),
    ):
        for share in (0.5, 0.99):
            measured = [percentile(measure(run), share) for run in operators]
            is_start = measure is starts and size >= MANY
            target = (TENTH if is_start else QUARTER) if share in judged else None
            ratio = statistics.median(measured) / whole
            yield Line(part, f"{name}, p{share * 100:.0f}", measured, "s", ratio, target)
    yield from _costs(part, size, scripts, operators)


def _slowdown(size: int) -> str:
    """The target for the time until all have ended, as a multiple of the script's."""
    return "<= 1.4" if size < MANY else "<= 1.6"


def _costs(part: str, size: int, scripts: list[Run], operators: list[Run]) -> Iterator[Line]:
    cpu = [1000 * run.cpu_seconds / size for run in operators]
    yield Line(part, "CPU per FineTune", cpu, "ms", statistics.median(cpu), "<= 30")
    peak = [run.peak_mib for run in operators]
    limit = "<= 120" if size <= MANY else "<= 200"
    yield Line(part, "peak memory", peak, "MiB", max(peak), limit)
    counted = [run.writes.total() / size for run in operators]
    budget = OBJECTS + STATUS_WRITES + EVENTS + EPOCHS
    yield Line(part, "writes per FineTune", counted, "writes", max(counted), f"<= {budget}")
    counted = [run.reads.total() / size for run in operators]
    yield Line(part, "reads per FineTune", counted, "reads", max(counted), f"<= {READS}")
    apiserver = [
        [1000 * run.apiserver_seconds / size for run in runs] for runs in (scripts, operators)
    ]
    if scripts:
        yield Line(part, "the script: the API server's CPU per FineTune", apiserver[0], "ms")
        ratio = statistics.median(apiserver[1]) / statistics.median(apiserver[0])
        yield Line(part, "the API server's CPU per FineTune", apiserver[1], "ms", ratio, "<= 1.6")


def _curves(name: str, run: Run) -> Curves:
    begin = min(timeline.created or 0 for timeline in _timelines(run))
    times = {
        "first Job": [(timeline.first_job or 0) - begin for timeline in _timelines(run)],
        "ended": [(timeline.ended or 0) - begin for timeline in _timelines(run)],
    }
    return {
        f"{name}: {what}": [round(percentile(seconds, share / 100), 3) for share in range(101)]
        for what, seconds in times.items()
    }


def _timelines(run: Run) -> list[Timeline]:
    return list(run.timelines.values())


def starts(run: Run) -> list[float]:
    """Return the seconds from creation to the first Job of each FineTune."""
    return [(timeline.first_job or 0) - (timeline.created or 0) for timeline in _timelines(run)]


def completions(run: Run) -> list[float]:
    """Return the seconds from the end of rank 0 to the final status.

    Only FineTunes that end while others wait to start count, or all of them if there are none.
    """
    last = max(timeline.first_job or 0 for timeline in _timelines(run))
    found = [((timeline.trained or 0), (timeline.ended or 0)) for timeline in _timelines(run)]
    early = [ended - trained for trained, ended in found if trained < last]
    return early or [ended - trained for trained, ended in found]


def restart(settings: Settings) -> Iterator[Line]:
    """Restart with thousands of ended FineTunes, then start more."""
    part, count = f"{settings.settled} settled", settings.settled
    with planes() as (plane, team, operator):
        settings.say(f"{part}: creating")
        operator.start()
        burst(plane, team, operator, "first", 1)
        status: JsonObject = team.status("first-0")
        operator.stop()
        create(plane, [(f"old-{number}", status) for number in range(count)])
        settings.say(f"{part}: the restart")
        begin, since = plane.audit_log.stat().st_size, time.monotonic()
        operator.start()
        wait(lambda: succeeded(operator) == count + 1, operator, team, every=0.2)
        seconds = time.monotonic() - since
        yield Line(part, "process start to all counted", [seconds], "s", seconds, "<= 10")
        time.sleep(3)
        yield _exact(part, "on the restart", _since(plane.audit_log, begin, operator), 0)
        peak = operator.peak_mib()
        yield Line(part, "peak memory", [peak], "MiB", peak, "<= 200")
        settings.say(f"{part}: {NEIGHBORS} more at once")
        run = burst(plane, team, operator, "new", NEIGHBORS)
        yield Line(part, f"{NEIGHBORS} more: all ended", [run.seconds], "s")
        yield Line(part, "peak memory then", [run.peak_mib], "MiB", run.peak_mib, "<= 200")


def concurrent(settings: Settings) -> Iterator[Line]:
    """Complete thousands at once, and sweep thousands that wait."""
    count = settings.concurrent
    part = f"{count} at once"
    settings.say(f"{part}: complete")
    yield from _costs(part, count, [], [run_operator(count)])
    with planes(sweepSeconds=SWEEP_SECONDS) as (plane, team, operator):
        settings.say(f"{part}: suspended, and swept")
        create(plane, [(f"idle-{number}", {}) for number in range(count)], suspend=True)
        operator.start()
        wait(lambda: in_state(operator, "pending") >= count, operator, team)
        wait_for_silence(plane)
        begin, since = plane.audit_log.stat().st_size, time.time()
        sweep = SWEEP_SECONDS + count / PER_SECOND
        time.sleep(sweep + SWEEP_SECONDS)  # one whole sweep
        found = audit.requests(plane.audit_log, NAMESPACE, begin)
        looks = [
            one.at
            for one in found
            if one.user == operator.user
            and one.verb == "get"
            and since < one.at <= since + sweep + SWEEP_SECONDS
        ]
        seconds = Counter(int(at) for at in looks)
        yield Line(
            part,
            "live looks of a sweep per second",
            [max(seconds.values())],
            "looks",
            max(seconds.values()),
            f"<= {2 * PER_SECOND}",
        )
        peak = operator.peak_mib()
        yield Line(part, "peak memory of the sweep", [peak], "MiB", peak, "<= 200")


def soak(settings: Settings) -> Iterator[Line]:
    """Complete and delete wave after wave in one process, and measure the slope of its memory."""
    part = f"{settings.waves} waves"
    size, resident = settings.wave_size, []
    with planes() as (plane, team, operator):
        operator.start()
        for number in range(settings.waves):
            burst(plane, team, operator, f"wave-{number}", size)
            team("delete", "finetunes,models", "--all", "--wait=false")
            wait(lambda: is_empty(team), operator, team, every=2)
            wait_for_silence(plane)
            resident.append(operator.resident_mib())
            settings.say(f"{part}: {number + 1} of {size}, {resident[-1]:.1f} MiB")
        peak = operator.peak_mib()
    yield Line(part, f"resident memory after each {size}", resident, "MiB")
    growth = slope(resident[WARM_WAVES:]) * 10_000 / size
    yield Line(part, "growth per 10,000 FineTunes", [growth], "MiB", growth, "<= 1")
    yield Line(part, "peak memory", [peak], "MiB", peak, "<= 120")


def slope(values: list[float]) -> float:
    """Return the change per value, by least squares."""
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(range(len(values)), values).slope


def poison(settings: Settings) -> Iterator[Line]:
    """Compare the p99 from creation to end with and without a FineTune that breaks its reconciles.

    Batches alternate in one process, so that the state of the machine is the same for both.
    """
    part = "poison"
    ends: dict[bool, list[float]] = {False: [], True: []}
    with planes() as (plane, team, operator):
        operator.start()
        burst(plane, team, operator, "warm", 10)
        for number in range(settings.rounds):
            for is_there in (False, True):
                settings.say(f"poison, round {number + 1} of {settings.rounds}: {is_there}")
                if is_there:
                    _poison(team, operator)
                run = burst(plane, team, operator, f"batch-{number}-{int(is_there)}", NEIGHBORS)
                whole = [
                    (timeline.ended or 0) - (timeline.created or 0) for timeline in _timelines(run)
                ]
                ends[is_there].append(percentile(whole, 0.99))
                if is_there:
                    team("delete", "finetune", "poison")
    clean, poisoned = (statistics.median(ends[key]) for key in (False, True))
    yield Line(part, f"p99 of {NEIGHBORS} without it", ends[False], "s")
    yield Line(part, f"p99 of {NEIGHBORS} next to it", ends[True], "s", poisoned / clean, "<= 1.2")


def _poison(team: Kubectl, operator: OperatorProcess) -> None:
    """Create a FineTune whose status is invalid: each reconcile of it raises an error."""
    spec = {"trainingFile": "s3://bucket/train.jsonl", "model": "ada", "suspend": True}
    meta = {"name": "poison"}
    team.apply(
        {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune", "metadata": meta, "spec": spec}
    )
    wait(lambda: team.status("poison").get("reason") == "Suspended", operator, team)
    team.patch_status("finetune", "poison", POISON)
    deadline = '{"spec": {"pendingDeadlineSeconds": 9}}'
    team("patch", "finetune", "poison", "--type=merge", "-p", deadline)
    wait(lambda: str(POISON["startedAt"]) in operator.logs(), operator, team)
