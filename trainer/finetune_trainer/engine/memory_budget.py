"""How much a micro-batch may hold, and whether activations are computed twice to save memory."""

from typing import TYPE_CHECKING, Any

from finetune_api.tasks import TrainTask
from finetune_data.models.memory_model import ModelShape
from finetune_trainer.batching.order import Costs
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.lora import is_adapted

if TYPE_CHECKING:
    from torch.nn import Module

CPU_SLOTS = 4096
GPU_SLOTS = 16384  # more tokens at once are no faster
ENOUGH_SLOTS = 4096  # fewer keep a GPU waiting: then gradient checkpointing is the smaller loss
USABLE = 0.85  # of what is free: the rest is fragmentation
# Bytes that a layer keeps for each token and unit of width until its backward pass, in bf16: what
# Korthikanti et al. 2022 (equation 2) counts, with a gated MLP of 3.5 widths and no dropout.
LAYER_BYTES = 48
HEAD_BYTES = 2**31  # a chunk of logits, thrice


def micro_batch_costs(task: TrainTask, engine: Engine, longest: int) -> Costs:
    """The same on all ranks. Switches gradient checkpointing on where memory asks for it.

    longest: example, in tokens; a micro-batch must hold it whatever the memory.
    """
    overhead = 2048 if task.accelerator == "nvidia" else 24
    if task.zero_stage >= 2:
        overhead = max(overhead, 512)  # every micro-batch moves gradients or weights
    slots = CPU_SLOTS
    if task.accelerator == "nvidia":
        slots = _gpu_slots(engine, longest)
    if task.micro_batch_share < 1:  # an attempt before this one ran out of memory
        enable_checkpointing(engine.model)
        slots = int(slots * task.micro_batch_share)
    return Costs(slots=max(longest, slots), overhead=overhead)


def _gpu_slots(engine: Engine, longest: int) -> int:
    import torch

    config = engine.objective.config.to_dict()
    shape = ModelShape.of(config, None)
    if shape is None:
        enable_checkpointing(engine.model)
        return ENOUGH_SLOTS
    trained = sum(parameter.numel() for _, parameter in engine.parameters())
    head = 6 * shape.vocabulary * shape.hidden
    free = torch.cuda.mem_get_info()[0] - 6 * trained - head - HEAD_BYTES
    room = engine.least(USABLE * free)
    slots = tokens_in(room, shape, is_checkpointed=False)
    if slots < max(longest, ENOUGH_SLOTS):
        enable_checkpointing(engine.model)
        slots = tokens_in(room, shape, is_checkpointed=True)
    return min(GPU_SLOTS, slots)


def tokens_in(room: float, shape: ModelShape, *, is_checkpointed: bool) -> int:
    """Whose activations fit into `room` bytes; with checkpointing a layer keeps its input only."""
    layers = 1 if is_checkpointed else shape.layers
    kept = 2 * shape.layers if is_checkpointed else 0
    return max(0, int(room / (shape.hidden * (LAYER_BYTES * layers + kept))))


def enable_checkpointing(model: "Module | Any") -> None:
    """Of activations: a layer's are computed again in the backward pass, where the model can."""
    if getattr(model, "supports_gradient_checkpointing", False) or is_adapted(model):
        model.gradient_checkpointing_enable({"use_reentrant": False})
