"""Times: RFC 3339 in Kubernetes, seconds since 1970 in OpenAI's API."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_time(text: str | None) -> datetime | None:
    """The time in UTC; None if the text, which any writer of a status chooses, is none."""
    try:
        found = datetime.fromisoformat(text or "")
        # A time without a zone is in UTC. The conversion fails at the ends of the calendar.
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def unix(text: str | None) -> int | None:
    """The time in whole seconds since 1970."""
    found = parse_time(text)
    return None if found is None else int(found.timestamp())
