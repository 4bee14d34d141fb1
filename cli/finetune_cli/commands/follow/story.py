"""What there is to say about a FineTune that is followed. Pure: values in, words out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_api.names import Reason, State
from finetune_cli.terminal.format import loss_text, time_left

BAR_MINIMUM, BAR_MAXIMUM = 8, 40  # characters


class EventHistory:
    """Tells each event once, although the status holds only the newest ones."""

    def __init__(self) -> None:
        self._told: list[EventEntry] = []

    def new_events(self, events: Sequence[EventEntry]) -> list[EventEntry]:
        """Those of `events` that come after all that was told."""
        longest = min(len(events), len(self._told))
        overlap = next((n for n in range(longest, 0, -1) if self._told[-n:] == list(events[:n])), 0)
        fresh = list(events[overlap:])
        self._told = [*self._told, *fresh][-256:]
        return fresh


@dataclass(frozen=True)
class StatusLine:
    """Where it stands: `share` of 1 for the bar, the rest in words, the most important first."""

    state: str
    stage: str
    share: float | None
    words: tuple[str, ...]


def status_line(status: FineTuneStatus, now: datetime) -> StatusLine:
    """Stage, step, loss, speed, time left; before the training the reason for waiting."""
    state, stage = status.state or State.PENDING, status.stage or ""
    if status.state is None:
        return StatusLine(state, stage, None, ("waiting for the operator to see it",))
    progress = status.progress
    if status.state != State.RUNNING or progress is None or not progress.steps:
        return StatusLine(state, stage, None, (status.message or status.reason or "",))
    words = [f"step {progress.step:,}/{progress.steps:,}"]
    if progress.loss is not None:
        words.append(f"loss {loss_text(progress.loss)}")
    if progress.tokens_per_second:
        words.append(f"{progress.tokens_per_second:,.0f} tok/s")
    if left := time_left(progress.eta, now):
        words.append(left)
    if progress.validation_loss is not None:
        words.append(f"validation {loss_text(progress.validation_loss)}")
    return StatusLine(state, stage, progress.step / progress.steps, tuple(words))


def plain_line(status: FineTuneStatus, now: datetime) -> str:
    """The same for a pipe: one line, no bar."""
    found = status_line(status, now)
    percent = "" if found.share is None else f"{found.share:.0%}".replace("%", " %")
    return "  ".join(filter(None, (found.state, found.stage, percent, *found.words)))


def bar(share: float, width: int) -> str:
    """A bar of `width` characters, eighths of a character fine."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    body = "█" * full + ("" if part == 0 else " ▏▎▍▌▋▊▉"[part])
    return body.ljust(width, "░")


def live_parts(found: StatusLine, width: int) -> tuple[str, str, str]:
    """(state and stage, bar, words) that fit into `width` characters together.

    The last words go first; what is left over is the bar's.
    """
    if found.share is None:
        state = "  ".join(filter(None, (found.state, found.stage)))
        words = " ".join("  ".join(found.words).split())
        room = width - len(state) - 2
        return state, "", words if len(words) <= room else words[: max(0, room - 1)] + "…"
    state = found.stage or found.state  # the bar says that it runs
    kept = [*found.words]
    while len(kept) > 1 and len(state) + 4 + BAR_MINIMUM + len("  ".join(kept)) > width:
        kept.pop()
    words = "  ".join(kept)
    room = min(BAR_MAXIMUM, width - len(state) - 4 - len(words))
    return state, bar(found.share, room) if room >= BAR_MINIMUM else "", words


def ending_lines(finetune: FineTune, program: str, flags: str) -> list[tuple[str, str]]:
    """(line, color) when it has ended: what came out, or why not, and the next step.

    program: how the person calls this; flags: of the cluster, to be repeated.
    """
    status, name = finetune.status, finetune.metadata.name
    if status.state == State.SUCCEEDED and status.reason == Reason.DRY_RUN:
        return [("Data checked, nothing trained. Status: succeeded", "green"), *_plan(status)]
    if status.state == State.SUCCEEDED:
        lines = [("Job complete! Status: succeeded", "bold green")]
        if status.fine_tuned_model:
            lines.append((f"Model: {status.fine_tuned_model}", ""))
        if status.model_uri:
            lines.append((f"Files: {status.model_uri}", ""))
        lines.append((f"Loss by step:    {program} results {name}{flags} --plot", "dim"))
        if status.fine_tuned_model:
            pull = f"{program} models pull {status.fine_tuned_model}{flags}"
            lines.append((f"Fetch the model: {pull}", "dim"))
            answer = f"{program} complete {name}{flags} -p PROMPT"
            lines.append((f"Let it answer:   {answer}", "dim"))
        return lines
    if status.state == State.CANCELLED:
        return [
            ("Job cancelled. Its checkpoint and partial results are kept.", "magenta"),
            (f"What there is: {program} get {name}{flags}", "dim"),
        ]
    return failure_lines(finetune, program, flags)


def failure_lines(finetune: FineTune, program: str, flags: str) -> list[tuple[str, str]]:
    """Why it failed, with the lines that show it."""
    status = finetune.status
    error = status.error
    what = (error.message if error else status.message) or "the status says nothing more"
    lines = [(f"Job failed. {what}", "bold red")]
    if error and error.param:
        lines.append((f"Field: spec.{error.param.removeprefix('spec.')}", ""))
    if error:
        lines += [(f"  {line}", "") for line in error.lines or error.log or []]
    if error and error.hint:
        lines.append((f"hint: {error.hint}", "yellow"))
    lines.append((f"All of it: {program} get {finetune.metadata.name}{flags}", "dim"))
    return lines


def _plan(status: FineTuneStatus) -> list[tuple[str, str]]:
    """What a training would be."""
    found = status.resolved
    if found is None:
        return []
    figures = [
        ("examples", found.training_examples),
        ("validation examples", found.validation_examples),
        ("tokens an epoch", found.training_tokens),
        ("steps", found.steps),
    ]
    lines = [(f"  {value:,} {name}", "") for name, value in figures if value]
    if found.memory_per_rank_gib:
        lines.append((f"  about {found.memory_per_rank_gib:.1f} GiB of memory a GPU", ""))
    return lines


def interrupt_lines(name: str, program: str, flags: str) -> list[str]:
    """After Ctrl-C."""
    return [
        f"Stopped following. The fine-tune {name} goes on.",
        f"To come back:  {program} follow {name}{flags}",
        f"To end it:     {program} cancel {name}{flags}",
    ]
