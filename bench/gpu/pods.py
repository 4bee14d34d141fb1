"""Runs a whole training pod on this machine, from the download to the published model."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Literal

from bench.gpu.device import Device, resident_bytes
from bench.gpu.models import Sizes, write_pod_inputs
from bench.gpu.training import FULL, local_task
from bench.trainer import s3_server
from bench.trainer.task import free_port
from finetune_api.names import ENV_TASK, LOCAL_BUCKET
from finetune_api.outcome import Outcome
from finetune_api.tasks import MethodRef, TrainTask

POLL_SECONDS = 0.1
TRAINER = ("-m", "finetune_trainer")


@dataclass
class PodRun:
    """The end of a pod, and what was seen while it ran."""

    outcome: Outcome | None = None
    code: int = 0
    seconds: float = 0
    lines: list[tuple[float, str]] = field(default_factory=list)  # seconds from the start
    peaks: dict[str, float] = field(default_factory=dict)  # bytes of the rank, by stage and detail

    @property
    def log(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def when(self, start: str) -> float:
        """Seconds from the start of the pod to its first line that starts so."""
        for seconds, line in self.lines:
            if line.startswith(start):
                return seconds
        raise RuntimeError(f"the pod never printed {start!r}:\n{self.log[-1500:]}")


def prepare(
    device: Device, model: str, lengths: Sizes, *, batch_size: int, method: MethodRef = FULL
) -> TrainTask:
    """Put a model and a dataset into the local storage; return the task of one epoch."""
    task = local_task(device, examples=len(lengths), batch_size=batch_size, method=method)
    source = write_pod_inputs(device, model, lengths)
    uri, dataset, examples = s3_server.put(source, device.folder / "dataset", LOCAL_BUCKET)
    return task.replace(
        base=task.base.replace(uri=uri),
        dataset=dataset,
        training_examples=examples,
        hyperparameters=task.hyperparameters.replace(n_epochs=1),
    )


def run(task: TrainTask, folder: Path, program: Sequence[str] = TRAINER) -> PodRun:
    """Run one pod to its end. folder: a new one, for its files."""
    folder.mkdir(parents=True)
    task = task.replace(master_port=free_port(), progress_port=free_port())
    end = folder / "end"
    begin = time.monotonic()
    command = [sys.executable, *program, "--work-folder", str(folder / "work")]
    pod = subprocess.Popen(
        [*command, "--termination-log", str(end)],
        env={**os.environ, ENV_TASK: task.to_json()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    found = PodRun()
    assert pod.stdout is not None
    reader = threading.Thread(target=_read, args=(pod.stdout, found, begin), daemon=True)
    reader.start()
    try:
        sampler = Sampler(task.progress_port, folder / "work" / "rank-0.pid", found.peaks)
        while pod.poll() is None:
            sampler.sample()
            time.sleep(POLL_SECONDS)
    finally:
        pod.terminate()  # of an interrupted part; the launcher ends its ranks
        with contextlib.suppress(subprocess.TimeoutExpired):
            pod.wait(30)
        pod.kill()
    found.code, found.seconds = pod.wait(), time.monotonic() - begin
    reader.join(5)
    found.outcome = Outcome.parse(end.read_text()) if end.exists() else None
    return found


def _read(stream: IO[str], found: PodRun, begin: float) -> None:
    for line in stream:
        found.lines.append((time.monotonic() - begin, line.rstrip()))


class Sampler:
    """Samples the memory of the pod's rank, with a peak of its own for each stage."""

    def __init__(self, port: int, pid_file: Path, peaks: dict[str, float]) -> None:
        self._address = f"http://127.0.0.1:{port}/progress"
        self._pid_file = pid_file
        self._peaks = peaks
        self._stage = ""
        self._field: Literal["VmHWM", "VmRSS"] = "VmHWM"

    def sample(self) -> None:
        stage = self._current_stage()
        if stage is None or not self._pid_file.exists():
            return
        pid = int(self._pid_file.read_text())
        peak = resident_bytes(pid, self._field)
        if self._stage:
            self._peaks[self._stage] = max(peak, self._peaks.get(self._stage, 0.0))
        if stage != self._stage:
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # a new peak
            except OSError:  # not on every kernel: the peak of the samples is close
                self._field = "VmRSS"
            self._stage = stage

    def _current_stage(self) -> str | None:
        """The stage and its detail in `/progress`, which answers 503 before the training."""
        try:
            report = self._report()
        except (OSError, ValueError, HTTPException):  # it can end during its answer
            return None
        detail = str(report.get("detail") or "").partition(":")[0]
        return f"{report.get('stage')}: {detail}"

    def _report(self) -> Any:
        try:
            with urllib.request.urlopen(self._address, timeout=2) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)
