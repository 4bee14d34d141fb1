"""The events of a FineTune that are already on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.finetune_status import EventEntry


class EventHistory:
    """Returns each event once, although the status keeps only the newest ones."""

    def __init__(self) -> None:
        self._shown: list[tuple[str, str, str]] = []

    def new_events(self, events: Sequence[EventEntry]) -> list[EventEntry]:
        """The events that follow the ones returned before."""
        # An upgrade of the operator may fill the other fields of an event that is shown already.
        found = [(event.at, event.reason, event.message) for event in events]
        longest = min(len(found), len(self._shown))
        lengths = range(longest, 0, -1)
        overlap = next((n for n in lengths if self._shown[-n:] == found[:n]), 0)
        self._shown = [*self._shown, *found[overlap:]][-256:]
        return list(events[overlap:])
