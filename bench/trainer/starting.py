"""From exec to the end of the first optimiser step, and steps beside checkpoints."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.machine import ROOT
from bench.trainer import ours, store, workload
from bench.trainer.parts import WARM_UP, Line, Settings, measured, trl


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
        values = trl(settings, "packing", 2, folder)
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
    options = ours.parser().parse_args([str(folder), "--steps", "1", "--bucket", store.BUCKET])
    task = ours.task_of(options, examples)
    task = task.replace(
        base=task.base.replace(uri=model),
        dataset=data,
        master_port=ours.free_port(),
        progress_port=ours.free_port(),
    )
    rooms = os.pathsep.join(str(ROOT / room) for room in ("api", "data", "trainer"))
    command = [sys.executable, "-m", "finetune_trainer", "--work-folder", str(place / "work")]
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
    """The 99th percentile of a step's seconds, with a checkpoint always on its way, and without."""
    folder = workload.write(
        settings.folder / "checkpoints", examples=640, vocabulary=32_000, shape=workload.SMALL
    )
    steps = settings.steps(120)
    found: dict[str, list[float]] = {"without": [], "with": []}
    told: list[float] = []
    for number in range(settings.rounds):
        place = settings.folder / f"checkpoints-{number}"
        with store.s3(place):
            for name, values in found.items():
                settings.say(f"checkpoints, round {number + 1} of {settings.rounds}: {name}")
                more = ["--bucket", store.BUCKET, "--checkpoint-seconds", "10"]
                run = measured(folder, "--steps", steps, *(more if name == "with" else []))
                tokens = np.array(run["tokens"][WARM_UP:], float)
                # steps differ in their tokens: seconds for as many as a step has on average
                seconds = np.array(run["seconds"][WARM_UP:]) / tokens * tokens.mean()
                values.append(float(np.percentile(seconds, 99)))
            told += [run["copy_seconds"], run["upload_seconds"]]
            names = [path.name for path in (place / "objects").rglob("manifest.json")]
            settings.say(json.dumps({"kept": len(names), "copy, upload": told[-2:]}))
    ratio = statistics.median(found["with"]) / statistics.median(found["without"])
    for name, values in found.items():
        is_with = name == "with"
        yield Line(
            *("checkpoints", f"ours, p99 of a step {name} checkpoints", values, "s"),
            ratio=ratio if is_with else None,
            target="<= 1.2" if is_with else None,
        )
