"""Runs programs and says what they do: a line a step with the time, never a silent minute."""

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
    """A program failed; the message holds its last lines."""


def say(text: str) -> None:
    """One progress line, on stderr: stdout is for results."""
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

    Lines for which `shown` is true become progress lines at once; when none came for
    `HEARTBEAT_SECONDS`, a line says what it has been at since then.
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
        raise CommandError(f"{shlex.join(words[:3])} … ended with {code}:\n  {tail}")
    return output
