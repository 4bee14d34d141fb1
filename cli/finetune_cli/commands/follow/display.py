"""The live line at the bottom of a terminal; occasional plain lines in a pipe."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_api.text.sanitizing import sanitize
from finetune_cli.terminal.console import Screen, styled
from finetune_cli.terminal.format import STATE_COLORS, local_time
from finetune_cli.terminal.program import program_name
from finetune_cli.terminal.status_line import live_parts, plain_line, status_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

OPERATOR_SECONDS = 30.0  # a healthy operator needs one second
PLAIN_SECONDS = 30.0  # between two progress lines in a pipe
EVENT_COLORS = {"warning": "yellow", "error": "red"}


class Display:
    """Shows the latest status. A context manager: the live line disappears at its end."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._status = FineTuneStatus()
        self._connection_error = ""
        self._last_line = ""  # in a pipe: state, stage, and message of the last line
        self._last_line_at = -PLAIN_SECONDS
        self._started = time.monotonic()
        self._live: AbstractContextManager[Any] = nullcontext()
        if screen.is_pretty:
            from rich.live import Live

            # a thread redraws the line, so the time left counts down without updates
            self._live = Live(self, console=screen.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def show_event(self, entry: EventEntry) -> None:
        """Print a permanent line in the format of OpenAI's command line."""
        text = f"[{local_time(entry.at)}] {entry.message}"
        self._screen.say(text, EVENT_COLORS.get(entry.level))

    def show_status(self, status: FineTuneStatus) -> None:
        """Show the current status; the connection works."""
        if self._connection_error and not self._screen.is_pretty:
            self._screen.say("reconnected")
        self._status, self._connection_error = status, ""
        if not self._screen.is_pretty:
            self._say_occasionally()

    def show_disconnected(self, reason: str) -> None:
        """Show that the connection is lost and is being retried."""
        if not self._connection_error and not self._screen.is_pretty:
            self._screen.say(f"reconnecting: {reason}")
        self._connection_error = reason

    def _say_occasionally(self) -> None:
        line = f"{self._status.state} {self._status.stage} {self._status.message}"
        now = time.monotonic()
        if line != self._last_line or now - self._last_line_at >= PLAIN_SECONDS:
            self._last_line, self._last_line_at = line, now
            self._screen.say(plain_line(self._status, datetime.now(UTC)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(20, options.max_width - 1)
        if self._connection_error:
            yield styled((f"reconnecting: {sanitize(self._connection_error)}"[:width], "yellow"))
            return
        parts = status_line(self._status, datetime.now(UTC))
        if self._status.state is None and time.monotonic() - self._started > OPERATOR_SECONDS:
            advice = f"no operator has responded; run `{program_name()} doctor`"
            parts = replace(parts, details=(advice,))
        state, drawn, details = live_parts(parts, width)
        color = STATE_COLORS.get(parts.state, "")
        line = styled((state, f"bold {color}"))
        if drawn:
            line.append("  ").append(drawn, style=color)
        line.no_wrap, line.overflow = True, "ellipsis"
        yield line.append("  ").append_text(styled((details, "")))
