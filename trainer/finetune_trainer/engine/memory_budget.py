"""The size of a micro-batch, and the choice of activation checkpointing, by available memory."""

from math import prod
from typing import TYPE_CHECKING, Any

from finetune_api.tasks import Offload, TrainTask
from finetune_data.memory.shape import ModelShape
from finetune_trainer.batching.order import Costs
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.lora import is_adapted

if TYPE_CHECKING:
    from torch.nn import Module

CPU_SLOTS = 4096
GPU_SLOTS = 16384  # larger micro-batches are not faster
ENOUGH_SLOTS = 4096  # with fewer, a GPU idles: activation checkpointing costs less than that
USABLE = 0.85  # share of the free memory; the rest is for fragmentation
# Bytes per token and unit of width that a layer keeps until its backward pass, in bf16:
# Korthikanti et al. 2022, equation 2, for a gated MLP of 3.5 widths and no dropout.
LAYER_BYTES = 48
HEAD_BYTES = 2**31  # three times a chunk of logits


def micro_batch_costs(task: TrainTask, engine: Engine, longest: int) -> Costs:
    """The limits of a micro-batch, the same on all ranks. May enable activation checkpointing.

    longest: tokens of the longest example, which every micro-batch must be able to hold.
    """
    overhead = 2048 if task.accelerator == "nvidia" else 24
    if task.zero_stage >= 2:
        overhead = max(overhead, 512)  # every micro-batch moves gradients or weights
    slots = CPU_SLOTS
    if task.accelerator == "nvidia":
        slots = _gpu_slots(engine, longest, task.offload)
    if task.micro_batch_share < 1:  # an earlier attempt ran out of memory
        enable_checkpointing(engine.model)
        slots = int(slots * task.micro_batch_share)
    return Costs(slots=max(longest, slots), overhead=overhead)


def _gpu_slots(engine: Engine, longest: int, offload: Offload) -> int:
    import torch

    config = engine.objective.config.to_dict()
    shape = ModelShape.of(config, None)
    if shape is None:
        enable_checkpointing(engine.model)
        return ENOUGH_SLOTS
    trained = sum(prod(engine.shape(parameter)) for _, parameter in engine.parameters())
    pending = pending_gradient_bytes(engine.zero_stage, offload, engine.coordinates.ranks)
    head = 6 * shape.vocabulary * shape.hidden
    torch.cuda.empty_cache()  # `mem_get_info` counts torch's cached blocks as used
    free = torch.cuda.mem_get_info()[0] - pending * trained - head - HEAD_BYTES
    room = engine.least(USABLE * free)
    slots = tokens_in(room, shape, is_checkpointed=False)
    if slots < max(longest, ENOUGH_SLOTS):
        enable_checkpointing(engine.model)
        slots = tokens_in(room, shape, is_checkpointed=True)
    return min(GPU_SLOTS, slots)


def pending_gradient_bytes(zero_stage: int, offload: Offload, ranks: int) -> float:
    """Bytes per trained parameter that the first step allocates on the GPU for gradients, in bf16.

    Without offload, ZeRO 1 and 3 allocate their fp32 gradients before the first step. ZeRO 2 does
    so in the first backward pass, where the bf16 gradients of the rank's partition exist, too. With
    offload, ZeRO 1 adds up all gradients on the GPU, and ZeRO 3 on the host.
    """
    if zero_stage == 2:
        return 6 / ranks
    return 4.0 if zero_stage < 2 and offload != "none" else 0.0


def tokens_in(room: float, shape: ModelShape, *, is_checkpointed: bool) -> int:
    """Tokens with activations of `room` bytes; with checkpointing a layer keeps only its input."""
    layers = 1 if is_checkpointed else shape.layers
    kept = 2 * shape.layers if is_checkpointed else 0
    return max(0, int(room / (shape.hidden * (LAYER_BYTES * layers + kept))))


def enable_checkpointing(model: "Module | Any") -> None:
    """Recompute the activations of layers in the backward pass, if the model supports it."""
    if getattr(model, "supports_gradient_checkpointing", False) or is_adapted(model):
        model.gradient_checkpointing_enable({"use_reentrant": False})
