"""Terminal output of the demo: parts with their durations, and no minute without a line."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

WIDTH = 80
QUIET_SECONDS = 15.0  # without output, until a line says that the command is still running
LAST_LINES = 12


class DemoError(Exception):
    """One sentence on the failure and, if known, its fix."""


class Terminal:
    """Headings and lines, with one live line at the bottom if the output is a terminal."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []
        self._is_live = sys.stdout.isatty()
        self._live = ""
        self._live_at = 0.0

    @contextmanager
    def part(self, number: int, of: int, title: str) -> Iterator[None]:
        """Print a heading, and the duration at the end of the block."""
        self.say()
        self.say(f"{f'--- {number}/{of} {title} ':-<{WIDTH}}")
        begin = time.monotonic()
        try:
            yield
        finally:
            self.parts.append((title, time.monotonic() - begin))
        self.say(f"    {clock(self.parts[-1][1])}")

    def say(self, text: str = "") -> None:
        """Print a permanent line."""
        if self._live:
            sys.stdout.write("\r\033[K")
        sys.stdout.write(f"{text}\n{self._live}")
        sys.stdout.flush()

    def show(self, text: str, *, every: float = 10.0) -> None:
        """Replace the live line; without a terminal, print a line every `every` seconds."""
        now = time.monotonic()
        if self._is_live:
            width = shutil.get_terminal_size((WIDTH, 24)).columns - 1
            self._live = text[:width]
            sys.stdout.write(f"\r\033[K{self._live}")
            sys.stdout.flush()
        elif now - self._live_at >= every:
            self._live_at = now
            self.say(text)

    def end_live(self) -> None:
        """Remove the live line."""
        if self._live:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()
        self._live = ""
        self._live_at = 0.0

    def stream(
        self, what: str, command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path
    ) -> None:
        """Run a command and print its lines. Raises DemoError with its last line if it fails."""
        with Running(what, command, env=env, cwd=cwd) as running:
            self.watch(running)

    def watch(self, running: Running) -> None:
        """Print the lines of a command, including earlier ones, until it ends."""
        last: list[str] = []
        while True:
            try:
                line = running.lines.get(timeout=QUIET_SECONDS)
            except queue.Empty:
                self.say(f"    ... {running.what}: still running ({clock(running.age)})")
                continue
            if line is None:
                break
            last = [*last[1 - LAST_LINES :], line]
            self.say(f"    {line}")
        if code := running.process.wait():
            output = next((line for line in reversed(last) if line.strip()), "no output")
            raise DemoError(f"{running.what} failed with exit code {code}: {output.strip()}")


def output(
    command: Sequence[str],
    what: str,
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Run a short command and return its output. Raises DemoError with its last error line."""
    done = subprocess.run(
        command, env=env, cwd=cwd, input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise DemoError(f"{what} failed: {words}")
    return done.stdout


class Running:
    """A command that runs in the background and ends with its block."""

    def __init__(
        self, what: str, command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path
    ) -> None:
        self.what = what
        self.lines: queue.Queue[str | None] = queue.Queue()
        self._begin = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            text=True,
            errors="replace",
            start_new_session=True,  # so that its children end with it
        )
        threading.Thread(target=_read, args=(self.process, self.lines), daemon=True).start()

    @property
    def age(self) -> float:
        return time.monotonic() - self._begin

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            lines.put(line.rstrip())
    lines.put(None)


def clock(seconds: float) -> str:
    """Format seconds: 83 is `1 min 23 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
