"""What is measured, each in fresh processes: a part gives lines of the table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.trainer import peers, workload

WARM_UP = 3  # steps


@dataclass(frozen=True)
class Line:
    """One line of the table. A target is a ratio: `>= 1.1` or `<= 0.6`; None: only told."""

    part: str
    name: str
    values: list[float]  # one a round
    unit: str
    ratio: float | None = None
    target: str | None = None

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("ours")

    @property
    def is_met(self) -> bool | None:
        if self.ratio is None or self.target is None:
            return None
        sign, wanted = self.target.split()
        return self.ratio >= float(wanted) if sign == ">=" else self.ratio <= float(wanted)


@dataclass
class Settings:
    """How long it may take."""

    folder: Path
    rounds: int = 3
    is_quick: bool = False
    say: Callable[[str], None] = print
    env: dict[str, str] = field(default_factory=lambda: {**os.environ, "OMP_NUM_THREADS": "2"})

    def steps(self, many: int) -> int:
        return WARM_UP + (3 if self.is_quick else many)


def rate(found: dict[str, Any]) -> float:
    """Real tokens a second after the warm-up."""
    return sum(found["tokens"][WARM_UP - 1 :]) / sum(found["seconds"][WARM_UP - 1 :])


def measured(*arguments: object, module: str = "bench.trainer.ours") -> dict[str, Any]:
    """What a process of ours found."""
    found = machine.run_fresh(module, *map(str, arguments))
    return {**found.values, "peak_mb": found.peak_mb}


def trl(settings: Settings, mode: str, steps: int, folder: Path, batch: int = 8) -> dict[str, Any]:
    command = [str(peers.python()), str(Path(__file__).with_name("peer.py")), str(folder), mode]
    ran = subprocess.run(
        [*command, str(steps), str(batch)],
        env=settings.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if ran.returncode:
        sys.exit(f"TRL {mode} failed:\n{ran.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def throughput(settings: Settings) -> Iterator[Line]:
    """Real tokens a second: packed by TRL against us, and TRL padded against us."""
    folder = workload.write(
        settings.folder / "throughput", examples=640, vocabulary=32_000, shape=workload.SMALL
    )
    kinds = ("packing", "padded", "group_by_length", "padding_free", "whole_logits")
    found: dict[str, list[float]] = {name: [] for name in ("ours", "ours, padded", *kinds)}
    for number in range(settings.rounds):
        for name, rates in found.items():
            settings.say(f"throughput, round {number + 1} of {settings.rounds}: {name}")
            if name.startswith("ours"):
                more = ["--padded"] if name.endswith("padded") else []
                values = measured(folder, "--steps", settings.steps(20), *more)
            else:
                values = trl(settings, name, settings.steps(20 if name == "packing" else 8), folder)
            rates.append(rate(values))
    mine = statistics.median(found["ours"])
    targets = {"packing": ">= 1.1", "padded": ">= 2.5"}
    for name, values in found.items():
        ratio = mine / statistics.median(values)
        label = name if name.startswith("ours") else f"TRL {name}"
        if name == "whole_logits":
            label = "transformers.Trainer, padded, whole logits"
        yield Line("throughput", label, values, "tokens/s", ratio, targets.get(name))


def memory(settings: Settings) -> Iterator[Line]:
    """The process's peak at growing vocabularies."""
    for vocabulary in (32_000, 128_000) if settings.is_quick else (32_000, 64_000, 128_000):
        folder = workload.write(
            settings.folder / f"memory-{vocabulary}",
            examples=64,
            vocabulary=vocabulary,
            shape=workload.TINY,
        )
        found: dict[str, list[float]] = {"ours": [], "padding_free": [], "whole_logits": []}
        for _ in range(1 if settings.is_quick else settings.rounds):
            for name, peaks in found.items():
                settings.say(f"memory at a vocabulary of {vocabulary:,}: {name}")
                if name == "ours":
                    values = measured(folder, "--steps", 3, "--batch", 13)
                else:
                    values = trl(settings, name, 3, folder, batch=13)
                peaks.append(values["peak_mb"])
        mine = statistics.median(found["ours"])
        is_large = vocabulary == 128_000
        targets = {"padding_free": "<= 1.0", "whole_logits": "<= 0.6"} if is_large else {}
        for name, peaks in found.items():
            label = {"ours": "ours", "padding_free": "TRL padding_free"}.get(
                name, "transformers.Trainer, whole logits"
            )
            ratio = mine / statistics.median(peaks)
            yield Line(
                f"memory, {vocabulary // 1000}k", label, peaks, "MB", ratio, targets.get(name)
            )


def overhead(settings: Settings) -> Iterator[Line]:
    """Milliseconds a step that our loop adds to DeepSpeed's on a model of 0.1 M."""
    folder = workload.write(
        settings.folder / "overhead", examples=400, vocabulary=300, shape=workload.TINY
    )
    for stage in (0, 1) if settings.is_quick else (0, 1, 2, 3):
        differences = []
        for number in range(settings.rounds):
            settings.say(f"overhead, ZeRO {stage}, round {number + 1} of {settings.rounds}")
            arguments = (
                folder,
                "--steps",
                settings.steps(150),
                "--batch",
                4,
                "--zero-stage",
                stage,
            )
            mine = measured(*arguments)["seconds"]
            bare = measured(*arguments, module="bench.trainer.bare")["seconds"]
            medians = (statistics.median(part[WARM_UP:]) for part in (mine, bare))
            differences.append(1000 * (next(medians) - next(medians)))
        value = statistics.median(differences)
        yield Line(
            "overhead", f"over bare DeepSpeed, ZeRO {stage}", differences, "ms", value, "<= 2.0"
        )
