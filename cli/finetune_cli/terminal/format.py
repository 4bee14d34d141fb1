"""Times, amounts, and states formatted for users. Pure; all times have a time zone."""

from __future__ import annotations

from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86400

STATE_COLORS = {
    "pending": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def parse_time(stamp: str | None) -> datetime | None:
    """Parse a timestamp of a status; None if it is missing or invalid."""
    try:
        found = datetime.fromisoformat(stamp or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def short_age(seconds: float) -> str:
    """An age in kubectl's format: `45s`, `12m`, `3h`, `5d`."""
    seconds = max(0, int(seconds))
    if seconds < 2 * MINUTE:
        return f"{seconds}s"
    if seconds < 2 * HOUR:
        return f"{seconds // MINUTE}m"
    if seconds < 2 * DAY:
        return f"{seconds // HOUR}h"
    return f"{seconds // DAY}d"


def duration(seconds: float) -> str:
    """`40 s`, `8 min`, `3 h 20 min`, `2 d 5 h`."""
    seconds = max(0, round(seconds))
    if seconds < 100:
        return f"{seconds} s"
    minutes = round(seconds / MINUTE)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def time_left(eta: str | None, now: datetime) -> str:
    """`8 min left`; empty if the time is unknown or in the past."""
    end = parse_time(eta)
    seconds = round((end - now).total_seconds()) if end else 0
    return f"{duration(seconds)} left" if seconds > 0 else ""


def local_time(stamp: str) -> str:
    """A timestamp in local time, in the format of OpenAI's command line."""
    found = parse_time(stamp)
    return f"{found.astimezone():%Y-%m-%d %H:%M:%S}" if found else stamp


def size(count: int) -> str:
    """`512 B`, `1.5 MiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def gib_text(value: float) -> str:
    """`60.8 GiB`; `0.013 GiB` for what would be 0.0, such as a tiny model."""
    return f"{value:,.1f} GiB" if value >= 0.1 else f"{value:.2g} GiB"


def number(value: float) -> str:
    """Up to four significant digits: `1.204`, `0.0002`, `3e-07`."""
    return f"{value:.4g}"


def loss_text(value: float) -> str:
    """`1.2044`: four decimals, so that the width of a live line does not change."""
    return f"{value:.4f}"


def shortened(text: str, width: int) -> str:
    """At most `width` characters; the middle is cut, because names differ at their ends."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"
