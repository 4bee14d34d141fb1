"""The time of each training step, estimated between the times that the status has.

results.csv has no times: a repeated run writes the same bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate

from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import State
from finetune_gateway.wire.timestamps import unix

STARTED = "Started"  # reasons of Events
EPOCH_COMPLETED = "EpochCompleted"  # its key is the number of the epoch


def step_times(status: FineTuneStatus, created_at: int) -> Callable[[int], int]:
    """A function from a step to seconds since 1970, which never decreases."""
    points = sorted({**dict(_points(status)), 0: _start(status, created_at)}.items())
    steps = [step for step, _ in points]
    times = list(accumulate((time for _, time in points), max))

    def time_of(step: int) -> int:
        after = bisect_right(steps, step)
        if after == 0 or after == len(steps):
            return times[max(after - 1, 0)]
        share = (step - steps[after - 1]) / (steps[after] - steps[after - 1])
        return times[after - 1] + int(share * (times[after] - times[after - 1]))

    return time_of


def _start(status: FineTuneStatus, created_at: int) -> int:
    """The start of the training; once its Event is dropped, that of the first attempt."""
    started = [event.at for event in status.events if event.reason == STARTED]
    first = [status.attempts[0].started_at] if status.attempts else []
    times = (unix(text) for text in (*started, *first))
    return next((time for time in times if time is not None), created_at)


def _points(status: FineTuneStatus) -> Iterator[tuple[int, int]]:
    """Steps whose time is known. A later one of the same step replaces an earlier one."""
    progress, resolved = status.progress, status.resolved
    if progress is not None and (at := unix(progress.updated_at)) is not None:
        yield progress.step, at
    if resolved is None or resolved.steps is None or resolved.hyperparameters is None:
        return
    epochs = max(resolved.hyperparameters.n_epochs, 1)
    for event in status.events:
        is_epoch = event.reason == EPOCH_COMPLETED and (event.key or "").isdecimal()
        if is_epoch and (at := unix(event.at)) is not None:
            yield resolved.steps * min(int(event.key or 0), epochs) // epochs, at
    if status.state == State.SUCCEEDED and (at := unix(status.finished_at)) is not None:
        yield resolved.steps, at
