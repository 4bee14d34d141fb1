"""The live line at the bottom of a terminal; in a pipe a line now and then."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_cli.commands.follow.story import live_parts, plain_line, status_line
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.format import STATE_COLORS, local
from finetune_cli.terminal.program import program_name

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

PATIENCE_SECONDS = 30.0  # an operator that is well needs a second
PLAIN_SECONDS = 30.0  # between two lines about progress in a pipe
EVENT_COLORS = {"warning": "yellow", "error": "red"}


class Display:
    """Shows what it is told last. A context manager: the live line goes when it ends."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._status = FineTuneStatus()
        self._trouble = ""
        self._said = ""  # in a pipe: state, stage and message of the last line
        self._said_at = -PLAIN_SECONDS
        self._began = time.monotonic()
        self._live: AbstractContextManager[Any] = nullcontext()
        if screen.is_pretty:
            from rich.live import Live

            # the terminal is drawn anew by a thread: the time left counts down by itself
            self._live = Live(self, console=screen.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def event(self, entry: EventEntry) -> None:
        """A line that stays, in the old tool's form."""
        text = f"[{local(entry.at)}] {entry.message}"
        self._screen.say(text, EVENT_COLORS.get(entry.level))

    def status(self, status: FineTuneStatus) -> None:
        """Where it stands now; the connection is well."""
        if self._trouble and not self._screen.is_pretty:
            self._screen.say("connected again")
        self._status, self._trouble = status, ""
        if not self._screen.is_pretty:
            self._say_now_and_then()

    def lost(self, why: str) -> None:
        """The connection is gone, and is sought."""
        if not self._trouble and not self._screen.is_pretty:
            self._screen.say(f"reconnecting: {why}")
        self._trouble = why

    def _say_now_and_then(self) -> None:
        words = f"{self._status.state} {self._status.stage} {self._status.message}"
        now = time.monotonic()
        if words != self._said or now - self._said_at >= PLAIN_SECONDS:
            self._said, self._said_at = words, now
            self._screen.say(plain_line(self._status, datetime.now(UTC)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width = max(20, options.max_width - 1)
        if self._trouble:
            yield Text(f"reconnecting: {self._trouble}"[:width], style="yellow")
            return
        found = status_line(self._status, datetime.now(UTC))
        if self._status.state is None and time.monotonic() - self._began > PATIENCE_SECONDS:
            found = replace(found, words=(f"no operator takes it up: try {program_name()} doctor",))
        state, drawn, words = live_parts(found, width)
        color = STATE_COLORS.get(found.state, "")
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(state, style=f"bold {color}")
        if drawn:
            line.append("  ").append(drawn, style=color)
        yield line.append("  ").append(words)
