"""Runs programs and prints progress: a line with the time for each step and at least every 15 s."""

from __future__ import annotations

import queue
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

HEARTBEAT_SECONDS = 15
TAIL_LINES = 40

_started = time.monotonic()


class CommandError(Exception):
    """A program failed; the message contains its last lines."""


def say(text: str) -> None:
    """Print one progress line to stderr; stdout is for results."""
    print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


def _pump(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line.rstrip())
    lines.put(None)


def run(
    title: str,
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    shown: Callable[[str], bool] = lambda line: False,
) -> list[str]:
    """Run `command` and return its output lines.

    A line for which `shown` is true is printed as progress immediately. After `HEARTBEAT_SECONDS`
    without one, a line repeats the last step and its duration.
    """
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
    output: list[str] = []
    step = ""
    since = said = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=max(0.0, said + HEARTBEAT_SECONDS - time.monotonic()))
        except queue.Empty:
            said = time.monotonic()
            say(f"{title}: … {said - since:.0f} s{step[:80] and f' after: {step[:80]}'}")
            continue
        if line is None:
            break
        output.append(line)
        if shown(line):
            step = line.strip()
            since = said = time.monotonic()
            say(f"{title}: {step[:110]}")
    if code := process.wait():
        tail = "\n  ".join(deque(output, TAIL_LINES))
        raise CommandError(f"{shlex.join(words[:3])} … failed with exit code {code}:\n  {tail}")
    return output
