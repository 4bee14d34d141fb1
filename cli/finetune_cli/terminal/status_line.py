"""The state of a FineTune in one line, with or without a progress bar. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import State
from finetune_api.text.sanitizing import sanitize
from finetune_cli.terminal.format import loss_text, time_left

BAR_MINIMUM, BAR_MAXIMUM = 8, 40  # characters


@dataclass(frozen=True)
class StatusLine:
    """The parts of the line. share: 0 to 1 for the bar; details: the most important first."""

    state: str
    stage: str
    share: float | None
    details: tuple[str, ...]


def status_line(status: FineTuneStatus, now: datetime) -> StatusLine:
    """Step, loss, speed, and time left of a running training; otherwise the reason for waiting."""
    state, stage = sanitize(status.state or State.PENDING), sanitize(status.stage or "")
    if status.state is None:
        return StatusLine(state, stage, None, ("waiting for the operator",))
    progress = status.progress
    if status.state != State.RUNNING or progress is None or not progress.steps:
        reason = " ".join((status.message or status.reason or "").split())
        return StatusLine(state, stage, None, (sanitize(reason),))
    details = [f"step {progress.step:,}/{progress.steps:,}"]
    if progress.loss is not None:
        details.append(f"loss {loss_text(progress.loss)}")
    if progress.tokens_per_second:
        details.append(f"{progress.tokens_per_second:,.0f} tok/s")
    if left := time_left(progress.eta, now):
        details.append(left)
    if progress.validation_loss is not None:
        details.append(f"validation {loss_text(progress.validation_loss)}")
    return StatusLine(state, stage, progress.step / progress.steps, tuple(details))


def plain_line(status: FineTuneStatus, now: datetime) -> str:
    """The line for a pipe: text only, no bar."""
    line = status_line(status, now)
    percent = "" if line.share is None else f"{line.share:.0%}".replace("%", " %")
    return "  ".join(filter(None, (line.state, line.stage, percent, *line.details)))


def bar(share: float, width: int) -> str:
    """A bar of `width` characters with a resolution of an eighth of a character."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    body = "█" * full + ("" if part == 0 else " ▏▎▍▌▋▊▉"[part])
    return body.ljust(width, "░")


def live_parts(line: StatusLine, width: int) -> tuple[str, str, str]:
    """(state and stage, bar, details) that fit into `width` characters together.

    The last details are dropped first. The bar gets the remaining width.
    """
    if line.share is None:
        state = "  ".join(filter(None, (line.state, line.stage)))
        text = " ".join("  ".join(line.details).split())
        room = width - len(state) - 2
        return state, "", text if len(text) <= room else text[: max(0, room - 1)] + "…"
    state = line.stage or line.state  # the bar already shows that the training runs
    kept = [*line.details]
    while len(kept) > 1 and len(state) + 4 + BAR_MINIMUM + len("  ".join(kept)) > width:
        kept.pop()
    text = "  ".join(kept)
    room = min(BAR_MAXIMUM, width - len(state) - 4 - len(text))
    return state, bar(line.share, room) if room >= BAR_MINIMUM else "", text
