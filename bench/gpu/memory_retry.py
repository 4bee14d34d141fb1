"""A pod that runs out of memory reports it, and its next attempt is smaller and passes."""

from __future__ import annotations

from collections.abc import Iterator

from bench.gpu import pods
from bench.gpu.device import Device
from bench.gpu.models import sizes
from bench.gpu.results import Measurement
from finetune_api.names import Reason

MODEL = "1B"
LENGTH, TOKENS = 1024, 524_288  # one step
PROGRAM = ("-m", "bench.gpu.overfull")
ATTEMPTS = 3


def measure(device: Device) -> Iterator[Measurement]:
    lengths = sizes(device, LENGTH, device.pick(TOKENS, 64 * LENGTH))
    task = pods.prepare(device, MODEL, lengths, batch_size=len(lengths))
    share = 1.0
    for attempt in range(1, ATTEMPTS + 1):
        task = task.replace(attempt=attempt, micro_batch_share=share)
        pod = pods.run(task, device.folder / f"pod-{attempt}", PROGRAM)
        failure = pod.outcome.failure if pod.outcome else None
        reason = failure.code if failure else None
        print(f"  attempt {attempt}: {reason or f'exit code {pod.code}'} ({pod.seconds:.0f} s)")
        if attempt == 1 and reason != Reason.OUT_OF_MEMORY:
            text = failure.message if failure else f"exit code {pod.code}"
            log = pod.log[-1500:]
            raise RuntimeError(f"the first attempt did not run out of memory: {text}\n{log}")
        if reason is None and pod.outcome is not None:
            yield Measurement("attempts until one passed", attempt, "", "<= 2", {"share": share})
            yield Measurement("seconds of the attempt that passed", pod.seconds, "s")
            return
        if reason != Reason.OUT_OF_MEMORY:
            break
        yield Measurement(f"seconds until attempt {attempt} ended", pod.seconds, "s")
        share /= 2  # as the operator does
    raise RuntimeError(f"no attempt passed: {pod.log[-1500:]}")
