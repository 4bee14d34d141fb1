"""The wait for the operator: a line for each new sentence, and the time in a live line."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from finetune_cli.terminal.console import Screen, styled
from finetune_cli.terminal.format import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

SERVING_COLORS = {"loading": "cyan", "ready": "green", "asleep": "magenta", "failed": "red"}


class Progress:
    """A context manager: the live line, which only a terminal has, disappears at its end."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown = ""
        self._connection_error = ""
        self._started = time.monotonic()
        self._live: AbstractContextManager[Any] = nullcontext()
        if screen.is_pretty:
            from rich.live import Live

            self._live = Live(self, console=screen.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def show(self, sentence: str, state: str = "") -> None:
        """Print a state and its cause if they differ from the line before."""
        line = "  ".join(filter(None, (state, sentence)))
        if line != self._shown:
            self._shown = line
            self._screen.say(line, SERVING_COLORS.get(state))

    def show_disconnected(self, reason: str) -> None:
        """Show that the connection is lost and is being retried."""
        if not self._connection_error and not self._screen.is_pretty:
            self._screen.say(f"reconnecting: {reason}")
        self._connection_error = reason

    def show_connected(self) -> None:
        """Show that the connection works again, if it was lost."""
        if self._connection_error and not self._screen.is_pretty:
            self._screen.say("reconnected")
        self._connection_error = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._connection_error:
            line = styled((f"reconnecting: {self._connection_error}", "yellow"))
        else:
            line = styled((f"waited {duration(time.monotonic() - self._started)}", "dim"))
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(max(20, options.max_width - 1), overflow="ellipsis")
        yield line
