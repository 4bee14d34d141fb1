"""From exec to the end of the first optimizer step, and steps beside checkpoints."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.machine import ROOT
from bench.table import Line
from bench.trainer import ours, peers, store, workload
from bench.trainer.parts import WARM_UP, Settings, measured, trl


def first_step(settings: Settings) -> Iterator[Line]:
    """Seconds; ours as a pod runs it, with S3, TRL from local files. Warm file caches for both."""
    folder = workload.write(
        settings.folder / "first", examples=640, vocabulary=32_000, shape=workload.SMALL
    )
    found: dict[str, list[float]] = {"ours, from S3": [], "TRL, from local files": []}
    for number in range(settings.rounds):
        settings.say(f"first step, round {number + 1} of {settings.rounds}")
        place = settings.folder / f"first-{number}"
        with store.s3(place):
            found["ours, from S3"].append(_pod(folder, place))
        begin = time.time()
        values = trl("packing", "fused", 2, folder)
        found["TRL, from local files"].append(values["first"] - begin)
    mine, theirs = (statistics.median(values) for values in found.values())
    for name, values in found.items():
        is_theirs = name.startswith("TRL")
        yield Line(
            *("first step", name, values, "s"),
            ratio=mine / theirs if is_theirs else None,
            target="<= 0.5" if is_theirs else None,
        )


def _pod(folder: Path, place: Path) -> float:
    """`python -m finetune_trainer` until its log tells of step 1; it is ended then."""
    model, data, examples = store.put(folder, place / "data")
    options = ours.parser().parse_args([str(folder), "--steps", "1"])
    task = ours.task_of(options, examples)
    task = task.replace(
        base=task.base.replace(uri=model),
        dataset=data,
        master_port=ours.free_port(),
        progress_port=ours.free_port(),
    )
    rooms = os.pathsep.join(str(ROOT / room) for room in ("api", "data", "trainer"))
    python = str(peers.our_python())
    command = [python, "-m", "finetune_trainer", "--work-folder", str(place / "work")]
    begin = time.time()
    pod = subprocess.Popen(
        [*command, "--termination-log", str(place / "end")],
        env={**os.environ, "PYTHONPATH": rooms, "FINETUNE_TASK": task.to_json()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert pod.stdout is not None
    lines = []
    for line in pod.stdout:
        lines.append(line)
        if line.startswith("step 1/"):
            seconds = time.time() - begin
            pod.terminate()
            pod.communicate()
            return seconds
    sys.exit("the pod ended before its first step:\n" + "".join(lines[-30:]))


def checkpoints(settings: Settings) -> Iterator[Line]:
    """The 99th percentile of a step's seconds, with checkpoints one after the other and without.

    All examples are of one length and all steps in one epoch, so that nothing but checkpoints
    sets a step apart.
    """
    folder = workload.write(
        settings.folder / "checkpoints",
        examples=1200,
        vocabulary=32_000,
        shape=workload.SMALL,
        even=True,
    )
    steps = settings.steps(120)
    often = 1 if settings.is_quick else 10  # seconds; more than a run makes in practice
    found: dict[str, list[float]] = {"without": [], "with": []}
    told: dict[str, list[float]] = {"copy": [], "upload": []}
    count = 0
    with store.s3(settings.folder / "checkpoints-s3"):
        for number in range(settings.rounds):
            for name, values in found.items():
                settings.say(f"checkpoints, round {number + 1} of {settings.rounds}: {name}")
                more = ["--checkpoint-seconds", often] if name == "with" else []
                run = measured(folder, "--steps", steps, *more)
                values.append(float(np.percentile(run["seconds"][WARM_UP:], 99)))
            told["copy"].append(run["copy_seconds"])
            told["upload"].append(run["upload_seconds"])
            count = run["checkpoints"]
    ratio = statistics.median(found["with"]) / statistics.median(found["without"])
    part, name = "checkpoints", f"ours: p99 of a step with {count} checkpoints"
    yield Line(part, "p99 of a step without checkpoints", found["without"], "s")
    yield Line(part, name, found["with"], "s", ratio, "<= 1.2")
    part = "a checkpoint"
    yield Line(part, "ours: the training waits for its copy", told["copy"], "s")
    yield Line(part, "ours: from the copy until all is in S3", told["upload"], "s")
