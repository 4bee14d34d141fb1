"""The section on the time from exec to the end of the first optimizer step."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.machine import python_path
from bench.table import Line
from bench.trainer import environments, s3_server, workload
from bench.trainer.measurement import Settings, run_trl
from bench.trainer.task import build_task, free_port


def first_step(settings: Settings) -> Iterator[Line]:
    """Seconds, of a pod with S3 and of TRL with local files. The file caches are warm for both."""
    folder = workload.write(
        settings.folder / "first", count=640, vocabulary=32_000, shape=workload.SMALL
    )
    subject: list[float] = []
    baseline: list[float] = []
    for number in range(settings.rounds):
        settings.print(f"first step, round {number + 1} of {settings.rounds}")
        pod_folder = settings.folder / f"first-{number}"
        with s3_server.s3(pod_folder):
            subject.append(_run_pod(folder, pod_folder))
        begin = time.time()
        baseline.append(run_trl("packing", "fused", 2, folder)["first"] - begin)
    ratio = statistics.median(subject) / statistics.median(baseline)
    yield Line("first step", "ours, from S3", subject, "s")
    yield Line("first step", "TRL, from local files", baseline, "s", ratio, "<= 0.5")


def _run_pod(workload_folder: Path, folder: Path) -> float:
    """Run `python -m finetune_trainer` until its log reports step 1; return the seconds."""
    model, data, examples = s3_server.put(workload_folder, folder / "data")
    task = build_task(examples=examples)
    task = task.replace(
        base=task.base.replace(uri=model),
        dataset=data,
        master_port=free_port(),
        progress_port=free_port(),
    )
    python = str(environments.trainer_python())
    command = [python, "-m", "finetune_trainer", "--work-folder", str(folder / "work")]
    begin = time.time()
    pod = subprocess.Popen(
        [*command, "--termination-log", str(folder / "end")],
        env={**os.environ, "PYTHONPATH": python_path(), "FINETUNE_TASK": task.to_json()},
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
