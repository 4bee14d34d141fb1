"""Bytes per parameter of each ZeRO stage on one rank, compared with the estimate of the project.

A micro-batch of few tokens keeps activations small. Memory from before a stage is subtracted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bench.gpu.device import Device, Memory
from bench.gpu.models import configuration
from bench.gpu.results import Measurement
from bench.gpu.training import FULL, build_engine, require_packed_path
from bench.trainer import workload
from finetune_api.tasks import Offload, RankResources

MODEL = "1B"
TOKENS = 128
STAGES: tuple[tuple[int, Offload], ...] = (
    (1, "none"),
    (2, "none"),
    (3, "none"),
    (3, "optimizer"),
)
# The estimate is an upper bound. A rehearsal sees the memory of the process, not of tensors.
MOST = "<= 1.0"


@dataclasses.dataclass
class Phases:
    """The peaks of one stage, in bytes more than before it."""

    after_init: float = 0
    init: float = 0
    backward: float = 0
    boundary: float = 0
    step: float = 0
    resume: float = 0
    reserved: float = 0


def measure(device: Device) -> Iterator[Measurement]:
    for stage, offload in STAGES:
        phases, parameters = observe(device, stage, offload)
        device.free()
        name = f"ZeRO {stage}" + (f", {offload} on the host" if offload != "none" else "")
        values = dataclasses.asdict(phases)
        for phase, size in values.items():
            title = f"{name}, {phase.replace('_', ' ')}"
            yield Measurement(title, size / parameters, "B per parameter")
        peak = max(phases.backward, phases.boundary, phases.step)
        bound = estimated_bytes(device, stage, offload)
        yield Measurement(
            f"{name}, peak of a step / estimate",
            peak / bound,
            "",
            device.pick(MOST, None),
            {"peak": peak, "estimate": bound, "resume": phases.resume},
        )


def observe(device: Device, stage: int, offload: Offload) -> tuple[Phases, int]:
    """The phases of two micro-batches, a step, and a resume; and the number of parameters."""
    import numpy as np

    from finetune_trainer.batching.microbatch import assemble

    memory = Memory(device)
    device.free()
    memory.reset()
    before, reserved = memory.allocated, memory.reserved
    phases = Phases()
    engine = build_engine(device, MODEL, zero_stage=stage, offload=offload)
    phases.init, phases.after_init = memory.peak - before, memory.allocated - before
    require_packed_path(engine, TOKENS)
    vocabulary = int(engine.objective.config.vocab_size)
    split = workload.examples(np.full(2, TOKENS // 2), vocabulary)
    batch = assemble(split, [0, 1], packed=True, prompts=True)
    for phase, is_last in (("backward", False), ("boundary", True)):
        memory.reset()
        engine.backward(engine.predict(batch, 0.1)[0], is_last=is_last)
        setattr(phases, phase, memory.peak - before)
    memory.reset()
    engine.step(1e-5)
    phases.step = memory.peak - before
    memory.reset()
    engine.start_at(1)
    phases.resume = memory.peak - before
    phases.reserved = memory.reserved - reserved
    sizes = [engine.shape(parameter) for _, parameter in engine.parameters()]
    return phases, sum(int(np.prod(size)) for size in sizes)


def estimated_bytes(device: Device, stage: int, offload: Offload) -> float:
    """The estimated peak of tensors: without what CUDA and NCCL need for themselves."""
    from finetune_data.memory.plan import CONTEXT_BYTES, estimate
    from finetune_data.memory.shape import ModelShape

    shape = ModelShape.of(configuration(MODEL, is_tiny=device.is_rehearsal).to_dict(), None)
    assert shape is not None
    workers = RankResources(accelerator="nvidia")  # a rehearsal trains in bf16, too
    plan = estimate(shape, workers, FULL, tokens=TOKENS, zero_stage=stage, offload=offload)
    return plan.peak - CONTEXT_BYTES
