"""Follow a FineTune: its events as they occur, and its state in one live line."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from examples.demo.cluster import Cluster
from examples.demo.terminal import DemoError, Terminal, clock
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import TERMINAL_STATES, State

LONGEST_SECONDS = 1200.0
TICK_SECONDS = 0.5


def follow(cluster: Cluster, name: str, terminal: Terminal) -> FineTuneStatus:
    """Return the status of the FineTune when it succeeds. Raises DemoError if it does not."""
    begin = time.monotonic()
    status = FineTuneStatus()
    printed = 0
    with _watch(cluster, name) as news:
        while True:
            with suppress(queue.Empty):
                status = news.get(timeout=TICK_SECONDS)
            for event in status.events[printed:]:
                terminal.say(f"    {local_time(event.at)}  {event.message}")
            printed = max(printed, len(status.events))
            if status.state in TERMINAL_STATES:
                break
            elapsed = time.monotonic() - begin
            terminal.show(f"    {one_line(status, datetime.now(UTC))}  ({clock(elapsed)})")
            if elapsed > LONGEST_SECONDS:
                raise DemoError(
                    f"FineTune {name} did not finish within {clock(elapsed)}. Its state is "
                    f"{status.state or 'not set'}: {status.message or 'no message'}"
                )
    terminal.end_live()
    if status.state != State.SUCCEEDED:
        raise DemoError(why_it_failed(name, status))
    return status


def one_line(status: FineTuneStatus, now: datetime) -> str:
    """State, stage, step, loss, and remaining time in one line."""
    words = [status.state or "new", status.stage or ""]
    progress = status.progress
    if status.state != State.RUNNING or progress is None:
        words.append(status.message or "waiting for the operator")
    else:
        words.append(f"step {progress.step}/{progress.steps}")
        if progress.loss is not None:
            words.append(f"loss {progress.loss:.3f}")
        if progress.validation_sequence_accuracy is not None:
            words.append(f"val acc {progress.validation_sequence_accuracy:.2f}")
        if progress.tokens_per_second:
            words.append(f"{progress.tokens_per_second:,.0f} tok/s")
        if progress.eta:
            left = (datetime.fromisoformat(progress.eta) - now).total_seconds()
            words.append(f"{clock(max(0, left))} left")
    return "  ".join(filter(None, words))


def why_it_failed(name: str, status: FineTuneStatus) -> str:
    """The error message, its hint, and the last lines of the pod's log."""
    error = status.error
    what = (error.message if error else status.message) or "the status has no message"
    lines = [f"FineTune {name} is {status.state}: {what}"]
    if error and error.hint:
        lines.append(f"  hint: {error.hint}")
    lines += [f"  {line}" for line in (error.lines or error.log or [] if error else [])]
    return "\n".join(lines)


def local_time(stamp: str) -> str:
    """The local time of a UTC timestamp."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")


@contextmanager
def _watch(cluster: Cluster, name: str) -> Iterator[queue.Queue[FineTuneStatus]]:
    """Watch the status with kubectl, which is started again if it ends."""
    news: queue.Queue[FineTuneStatus] = queue.Queue()
    watch = _Watch(cluster, name, news)
    thread = threading.Thread(target=watch.run, name=f"watch {name}", daemon=True)
    thread.start()
    try:
        yield news
    finally:
        watch.stop()
        thread.join(timeout=5)


class _Watch:
    def __init__(self, cluster: Cluster, name: str, news: queue.Queue[FineTuneStatus]) -> None:
        self._command = cluster.kubectl("get", "finetune", name, "--watch", "--output=json")
        self._env = cluster.env
        self._news = news
        self._stopped = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        while not self._stopped.is_set():
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self._process.stdout is not None
            for document in documents(self._process.stdout):
                self._news.put(FineTuneStatus.model_validate(document.get("status") or {}))
            self._process.wait()
            self._stopped.wait(1)

    def stop(self) -> None:
        self._stopped.set()
        if self._process is not None:
            self._process.terminate()


def documents(lines: Iterable[str]) -> Iterator[dict[str, object]]:
    """Split the output of kubectl into JSON objects.

    Each object spans many lines; only its closing brace is at the start of a line.
    """
    text = ""
    for line in lines:
        text += line
        if line.startswith("}"):
            yield json.loads(text)
            text = ""
