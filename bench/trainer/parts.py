"""What is measured, each in fresh processes: a part gives lines of the table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.table import Line
from bench.trainer import peers, store, workload

WARM_UP = 3  # steps


@dataclass
class Settings:
    """How long it may take."""

    folder: Path
    rounds: int = 3
    is_quick: bool = False
    say: Callable[[str], None] = print

    def steps(self, many: int) -> int:
        return WARM_UP + (3 if self.is_quick else many)


def rate(found: dict[str, Any]) -> float:
    """Real tokens a second after the warm-up."""
    return sum(found["tokens"][WARM_UP - 1 :]) / sum(found["seconds"][WARM_UP - 1 :])


def measured(*arguments: object, module: str = "bench.trainer.ours") -> dict[str, Any]:
    """What a process of ours found."""
    found = machine.run_fresh(module, *map(str, arguments))
    return {**found.values, "peak_mb": found.peak_mb}


def trl(mode: str, head: str, steps: int, folder: Path, batch: int = 8) -> dict[str, Any]:
    """What a process of the peer's found; see `peer`."""
    arguments = (folder, mode, head, steps, 1 if mode == "packing" else batch)
    ran = subprocess.run(
        [str(peers.python()), str(Path(__file__).with_name("peer.py")), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if ran.returncode:
        sys.exit(f"TRL {mode}, {head} logits, failed:\n{ran.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


Peer = tuple[str, str]  # mode and head of `peer`
LABELS = {"fused": "TRL {}", "whole": "Trainer, {}, whole logits"}  # the latter on TRL's batches
# Steps after the warm-up: a padded one takes the longest. Three rounds are about 12 minutes.
STEPS = {"packing": 12, "padding_free": 6, "group_by_length": 2, "padded": 5}
TARGETS = {"packing": ">= 1.1", "padded": ">= 2.5"}  # with either head; the faster one counts


def throughput(settings: Settings) -> Iterator[Line]:
    """Real tokens a second: packed by TRL against us, and TRL padded; its better head counts.

    `group_by_length` begins with the longest batches, and only those are measured: it is told
    beside the others and has no target.
    """
    folder = workload.write(
        settings.folder / "throughput", examples=640, vocabulary=32_000, shape=workload.SMALL
    )
    ours: dict[str, list[float]] = {"ours": [], "ours, padded": []}
    theirs: dict[Peer, list[float]] = {
        (mode, head): []
        for mode in (["packing"] if settings.is_quick else STEPS)
        for head in LABELS
        if head == "fused" or mode in TARGETS
    }
    with store.s3(settings.folder / "throughput-s3"):
        for number in range(settings.rounds):
            told = f"throughput, round {number + 1} of {settings.rounds}"
            for name, values in ours.items():
                settings.say(f"{told}: {name}")
                more = ["--padded"] if name.endswith("padded") else []
                values.append(rate(measured(folder, "--steps", settings.steps(12), *more)))
            for (mode, head), values in theirs.items():
                settings.say(f"{told}: {LABELS[head].format(mode)}")
                values.append(rate(trl(mode, head, settings.steps(STEPS[mode]), folder)))
    yield from (Line("throughput", name, values, "tokens/s") for name, values in ours.items())
    mine = statistics.median(ours["ours"])
    medians = {peer: statistics.median(values) for peer, values in theirs.items()}
    for (mode, head), values in theirs.items():
        is_best = medians[mode, head] == max(medians.get((mode, other), 0.0) for other in LABELS)
        target = TARGETS.get(mode) if is_best else None
        ratio = mine / medians[mode, head]
        yield Line("throughput", LABELS[head].format(mode), values, "tokens/s", ratio, target)


def memory(settings: Settings) -> Iterator[Line]:
    """The process's peak at growing vocabularies, for about 2,000 tokens a step without padding."""
    peers_of: list[Peer] = [("padding_free", "fused"), ("padding_free", "whole")]
    for vocabulary in (128_000,) if settings.is_quick else (32_000, 64_000, 128_000):
        folder = workload.write(
            settings.folder / f"memory-{vocabulary}",
            examples=64,
            vocabulary=vocabulary,
            shape=workload.TINY,
        )
        mine: list[float] = []
        theirs: dict[Peer, list[float]] = {peer: [] for peer in peers_of}
        with store.s3(settings.folder / f"memory-{vocabulary}-s3"):
            for _ in range(settings.rounds):
                settings.say(f"memory at a vocabulary of {vocabulary:,}")
                mine.append(measured(folder, "--steps", 3, "--batch", 13)["peak_mb"])
                for (mode, head), peaks in theirs.items():
                    peaks.append(trl(mode, head, 3, folder, batch=13)["peak_mb"])
        part = f"memory, {vocabulary // 1000}k"
        yield Line(part, "ours", mine, "MB")
        medians = {peer: statistics.median(peaks) for peer, peaks in theirs.items()}
        best = min(medians, key=medians.__getitem__)
        for (mode, head), value in medians.items():
            ratio = statistics.median(mine) / value
            target = "<= 1.0" if (mode, head) == best else None
            if head == "whole" and vocabulary == 128_000:
                target = "<= 0.6"
            label = LABELS[head].format(mode)
            yield Line(part, label, theirs[mode, head], "MB", ratio, target)


def overhead(settings: Settings) -> Iterator[Line]:
    """Milliseconds a step that our loop, rows in S3 and all, adds to DeepSpeed's on 0.1 M."""
    folder = workload.write(  # enough for all steps to be within an epoch: no checkpoint in between
        settings.folder / "overhead", examples=1600, vocabulary=300, shape=workload.TINY
    )
    size = ("--steps", settings.steps(150), "--batch", 4)
    with store.s3(settings.folder / "overhead-s3"):
        for stage in (1,) if settings.is_quick else (0, 1, 2, 3):
            differences = []
            for number in range(settings.rounds):
                settings.say(f"overhead, ZeRO {stage}, round {number + 1} of {settings.rounds}")
                mine, bare = (
                    measured(folder, *size, "--zero-stage", stage, module=module)["seconds"]
                    for module in ("bench.trainer.ours", "bench.trainer.bare")
                )
                differences.append(1000 * excess(mine[WARM_UP:], bare[WARM_UP:]))
            value = statistics.median(differences)
            name = f"ours over bare DeepSpeed, ZeRO {stage}"
            yield Line("overhead", name, differences, "ms", value, "<= 2.0")


def excess(mine: Sequence[float], bare: Sequence[float]) -> float:
    """Seconds a step: the median over steps of the difference, since both had the same batches."""
    return statistics.median(a - b for a, b in zip(mine, bare, strict=True))
