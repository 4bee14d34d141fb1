"""The section on the slowdown of steps by checkpoints."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from bench.table import Line
from bench.trainer import s3_server, workload
from bench.trainer.measurement import WARM_UP, Settings, run


def checkpoints(settings: Settings) -> Iterator[Line]:
    """The 99th percentile of the seconds of a step, with continuous checkpoints and without.

    All examples have the same length, and all steps are in one epoch, so that only checkpoints
    make a difference between steps.
    """
    folder = workload.write(
        settings.folder / "checkpoints",
        count=1200,
        vocabulary=32_000,
        shape=workload.SMALL,
        even=True,
    )
    steps = settings.steps(120)
    interval = 1 if settings.is_quick else 10  # seconds; shorter than in practice
    options: dict[str, list[object]] = {
        "without": [],
        "with": ["--checkpoint-seconds", interval],
    }
    percentiles: dict[str, list[float]] = {name: [] for name in options}
    copies: list[float] = []
    uploads: list[float] = []
    count = 0
    with s3_server.s3(settings.folder / "checkpoints-s3"):
        for number in range(settings.rounds):
            for name, values in percentiles.items():
                settings.print(f"checkpoints, round {number + 1} of {settings.rounds}: {name}")
                found = run(folder, "--steps", steps, *options[name])
                values.append(float(np.percentile(found["seconds"][WARM_UP:], 99)))
            copies.append(found["copy_seconds"])
            uploads.append(found["upload_seconds"])
            count = found["checkpoints"]
    without = percentiles["without"]
    ratio = statistics.median(percentiles["with"]) / statistics.median(without)
    part, name = "checkpoints", f"ours: p99 of a step with {count} checkpoints"
    yield Line(part, "p99 of a step without checkpoints", without, "s")
    yield Line(part, name, percentiles["with"], "s", ratio, "<= 1.2")
    part = "a checkpoint"
    yield Line(part, "ours: training waits for the copy", copies, "s")
    yield Line(part, "ours: from the copy until all is in S3", uploads, "s")
