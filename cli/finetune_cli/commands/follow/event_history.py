"""The events of a FineTune that are already on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.finetune_status import EventEntry


class EventHistory:
    """Returns each event once, although the status keeps only the newest ones."""

    def __init__(self) -> None:
        self._shown: list[EventEntry] = []

    def new_events(self, events: Sequence[EventEntry]) -> list[EventEntry]:
        """The events that follow the ones returned before."""
        longest = min(len(events), len(self._shown))
        lengths = range(longest, 0, -1)
        overlap = next((n for n in lengths if self._shown[-n:] == list(events[:n])), 0)
        new = list(events[overlap:])
        self._shown = [*self._shown, *new][-256:]
        return new
