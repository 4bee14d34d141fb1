"""A profile of two steps: the kernels that take longest, and the time without any kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bench.gpu.device import Device
from bench.gpu.results import Measurement
from bench.gpu.training import packed_steps

MODEL = "1B"
LENGTH, TOKENS, STEPS, WARM_UP = 2048, 32_768, 2, 2
TOP = 20
RATE = 1e-5

Interval = tuple[float, float]


def measure(device: Device) -> Iterator[Measurement]:
    import torch
    from torch.profiler import ProfilerActivity

    count = STEPS + WARM_UP
    engine, _, stepper = packed_steps(device, MODEL, length=LENGTH, tokens=TOKENS, steps=count)

    def steps(first: int, count: int) -> None:
        for step in range(first, first + count):
            stepper.accumulate(step)
            engine.step(RATE)
        device.synchronize()

    steps(1, WARM_UP)
    kind = device.pick(ProfilerActivity.CUDA, ProfilerActivity.CPU)
    with torch.profiler.profile(activities=[kind]) as profiler:
        steps(1 + WARM_UP, STEPS)
    wanted = device.pick(torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU)
    events = [
        event
        for event in profiler.events()
        if event.device_type == wanted and not getattr(event, "is_user_annotation", False)
    ]
    intervals = [(event.time_range.start, event.time_range.end) for event in events]
    if not intervals:
        raise RuntimeError("the profiler recorded no kernels")
    whole = max(end for _, end in intervals) - min(begin for begin, _ in intervals)
    kernels = longest(events)
    details = {"kernels": kernels, "count": len(events)}
    share = busy(intervals) / whole
    yield Measurement("share of the time in kernels", share, "", details=details)
    gaps = (whole - busy(intervals)) / STEPS / 1e3
    yield Measurement("time without a kernel, per step", gaps, "ms")
    for name, calls, milliseconds in kernels[:5]:
        print(f"  {milliseconds:9.1f} ms  {calls:6} calls  {name[:90]}")


def busy(intervals: Iterable[Interval]) -> float:
    """The length of the union of the intervals."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def longest(events: Iterable[Any]) -> list[tuple[str, int, float]]:
    """Name, calls, and milliseconds of the TOP kernels."""
    times: dict[str, list[float]] = {}
    for event in events:
        spent = event.time_range.end - event.time_range.start
        times.setdefault(event.name, []).append(spent)
    ranked = sorted(times.items(), key=lambda item: -sum(item[1]))
    return [(name, len(spent), sum(spent) / 1e3) for name, spent in ranked[:TOP]]
