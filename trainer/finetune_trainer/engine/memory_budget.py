"""The size of a micro-batch, and the number of checkpointed layers, by available memory."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune_api.tasks import TrainTask
from finetune_data.memory.activations import CHUNK_BYTES, Activations, Attention
from finetune_data.memory.shape import ModelShape
from finetune_data.memory.states import states_in_bf16
from finetune_trainer.batching.order import Costs
from finetune_trainer.engine import attention
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.lora import is_adapted

if TYPE_CHECKING:
    from torch.nn import Module

CPU_SLOTS = 4096
GPU_SLOTS = 16384  # larger micro-batches are not faster
GPU_OVERHEAD = 2048  # tokens that take as long as what each micro-batch does besides its tokens
UNKNOWN_SLOTS = 4096  # the config lacks the numbers of the estimate
USABLE = 0.9  # share of the free memory; the rest is for fragmentation, as in the prepare Job
# Time of a second forward pass of a layer, as a share of a step: an adapter's backward pass has
# half of the products of a full one.
RECOMPUTATION = {"full": 1 / 3, "lora": 1 / 2}


@dataclass(frozen=True)
class Choice:
    """A micro-batch, and the number of layers whose activations are recomputed."""

    tokens: int
    checkpointed: int


def micro_batch_costs(task: TrainTask, engine: Engine, longest: int) -> Costs:
    """The limits of a micro-batch, the same on all ranks. May enable activation checkpointing.

    longest: tokens of the longest example, which every micro-batch must be able to hold. If an
    earlier attempt ran out of memory, the logits of a chunk are fewer, too.
    """
    share = task.micro_batch_share
    if engine.objective.head is not None:
        engine.objective.head.chunk_share = share
    if task.accelerator == "nvidia":
        slots = _gpu_slots(task, engine, longest)
        overhead = GPU_OVERHEAD
    else:
        slots = int(CPU_SLOTS * share)
        overhead = 24
        if share < 1:
            enable_checkpointing(engine.model)
    if task.zero_stage >= 2:
        overhead = max(overhead, 512)  # every micro-batch moves gradients or weights
    return Costs(slots=max(longest, slots), overhead=overhead)


def choose_micro_batch(
    activations: Activations, room: float, longest: int, share: float = 1
) -> Choice:
    """The fastest micro-batch with activations of at most `room` bytes, or the smallest one.

    share: below 1, the activations have at most this share of the bytes that those of the first
    attempt had, until the micro-batch is one example and all layers are checkpointed.
    """
    choice = _fastest(activations, room, longest)
    if share < 1:
        former = activations.peak(choice.tokens, choice.checkpointed)
        smaller = replace(activations, chunk_bytes=activations.chunk_bytes * share)
        choice = _fastest(smaller, min(room, former) * share, longest)
    return choice


def _fastest(activations: Activations, room: float, longest: int) -> Choice:
    layers = activations.shape.layers
    fitting = [
        Choice(max(longest, min(GPU_SLOTS, tokens)), checkpointed)
        for checkpointed in range(layers + 1)
        if (tokens := activations.tokens_in(room, checkpointed)) >= longest
    ]

    def time(choice: Choice) -> float:
        recomputed = RECOMPUTATION[activations.method.type] * choice.checkpointed / layers
        return (1 + recomputed) * (1 + GPU_OVERHEAD / choice.tokens)

    return min(fitting, key=time, default=Choice(longest, layers))


def _gpu_slots(task: TrainTask, engine: Engine, longest: int) -> int:
    import torch

    shape = ModelShape.of(engine.objective.config.to_dict(), None)
    if shape is None:
        enable_checkpointing(engine.model)
        return int(UNKNOWN_SLOTS * task.micro_batch_share)
    ranks = engine.coordinates.ranks
    held = states_in_bf16(shape, task.method, ranks, engine.zero_stage, task.offload)
    torch.cuda.empty_cache()  # `mem_get_info` counts torch's cached blocks as used
    free = torch.cuda.mem_get_info()[0] - (held.backward - held.start)
    path = engine.compute_path
    activations = Activations(
        *(shape, task.method, 2, longest),
        attention=_attention(engine, longest),
        is_chunked=path.is_chunked,
        is_fused=path.is_fused,
        chunk_bytes=CHUNK_BYTES["cuda"],
    )
    room = engine.least(USABLE * free)
    choice = choose_micro_batch(activations, room, longest, task.micro_batch_share)
    if choice.checkpointed:
        enable_checkpointing(engine.model, choice.checkpointed)
    return choice.tokens


def _attention(engine: Engine, longest: int) -> Attention:
    if engine.compute_path.is_packed:
        return "flash"
    if engine.objective.own_attention == "eager":
        return "eager"
    return "flash" if attention.is_plain(engine.objective.config, longest) else "masked"


def enable_checkpointing(model: "Module | Any", layers: int | None = None) -> None:
    """Recompute the activations of the first `layers` layers in the backward pass, or of all.

    Does nothing if the model does not support it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not can_checkpoint(model):
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    decoder = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for module in decoder[len(decoder) if layers is None else layers :]:
        module.gradient_checkpointing = False


def can_checkpoint(model: "Module | Any") -> bool:
    """Whether the model can recompute activations."""
    return getattr(model, "supports_gradient_checkpointing", False) or is_adapted(model)
