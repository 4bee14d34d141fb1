"""A checkpoint of a 1B model: the copy, the stall, the restore, and the losses afterwards.

The same engine trains on after the checkpoint, restores it, and trains the same steps again. The
second run must repeat the losses. On a GPU, FlashAttention's backward pass adds in any order, so
that two runs differ in the last bits; how far is measured, and `is_bitwise` says whether they do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.gpu.device import Device, Memory
from bench.gpu.results import Measurement
from bench.gpu.training import packed_steps

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_trainer.checkpoint.state import TrainingState
    from finetune_trainer.engine.deepspeed import Engine
    from finetune_trainer.step.stepper import Stepper

MODEL = "1B"
LENGTH = 1024
TOKENS = 16_384  # of a step
BEFORE, AFTER = 3, 5  # steps before the checkpoint, and after it
RATE = 1e-4
LOSS_OFF = "<= 0.01"  # relative, after AFTER steps
STEP_SHARE = "<= 1.2"  # a step during the upload / a step without


def measure(device: Device) -> Iterator[Measurement]:
    from finetune_storage.connect import open_storage
    from finetune_trainer.checkpoint.state import TrainingState
    from finetune_trainer.checkpoint.store import Checkpoints

    count = BEFORE + AFTER
    engine, task, stepper = packed_steps(device, MODEL, length=LENGTH, tokens=TOKENS, steps=count)
    layout, folder = task.run.layout, device.folder / "checkpoints"
    checkpoints = Checkpoints(layout, open_storage(), engine, folder, 1)

    state = run(engine, stepper, TrainingState(), BEFORE)[0]
    checkpoints.begin(state)  # the first copy allocates the memory
    yield Measurement("first copy, for which training waits", checkpoints.copy_seconds, "s")
    during = run(engine, stepper, state, AFTER)
    checkpoints.finish()
    yield Measurement("from the copy to the manifest", checkpoints.upload_seconds, "s")
    final = weights(engine)

    memory = Memory(device)
    memory.reset()
    begin = time.monotonic()
    restored = checkpoints.restore()
    device.synchronize()
    yield Measurement("restore", time.monotonic() - begin, "s")
    yield Measurement("restore, peak of tensors", memory.peak / 2**30, "GiB")
    if restored.step != BEFORE:
        raise RuntimeError(f"the restored checkpoint is of step {restored.step}, not {BEFORE}")
    after = run(engine, stepper, restored, AFTER)
    off = max(abs(a - b) / abs(b) for a, b in zip(after[1], during[1], strict=True))
    details = {"first run": during[1], "resumed run": after[1], "is_bitwise": after[1] == during[1]}
    yield Measurement(
        "loss after the restore, from the first run", off, "relative", LOSS_OFF, details
    )
    difference = largest_difference(final, weights(engine))
    yield Measurement("weights after the restore, from the first run", difference, "largest")

    checkpoints.begin(after[0])
    yield Measurement("second copy, for which training waits", checkpoints.copy_seconds, "s")
    checkpoints.finish()
    yield Measurement(
        "a step during the upload / a step without",
        sorted(during[2])[AFTER // 2] / sorted(after[2])[AFTER // 2],
        "",
        device.pick(STEP_SHARE, None),
    )


def run(
    engine: Engine, stepper: Stepper, state: TrainingState, steps: int
) -> tuple[TrainingState, list[float], list[float]]:
    """Train; return the state, and the loss and the seconds of each step."""
    losses, seconds = [], []
    for _ in range(steps):
        begin = time.monotonic()
        totals, batch, _ = stepper.accumulate(state.step + 1)
        engine.step(RATE)
        state = state.after_step(totals, batch.tokens, batch.examples)
        losses.append(float(totals.loss or 0))
        seconds.append(time.monotonic() - begin)
    return state, losses, seconds


def weights(engine: Engine) -> dict[str, Tensor]:
    """Copies of the fp32 weights, in host memory."""
    return {name: engine.read_weights(p).cpu().clone() for name, p in engine.parameters()}


def largest_difference(left: dict[str, Any], right: dict[str, Any]) -> float:
    return max(float((left[name] - right[name]).abs().max()) for name in left)
