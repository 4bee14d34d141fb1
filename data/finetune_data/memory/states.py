"""Estimates the weights, gradients, and optimizer state of one rank.

Bytes per parameter, trained in bf16 with AdamW: 2 weights, 4 gradients (accumulated in fp32), 12
optimizer (fp32 weights and two moments); in fp32 on CPU: 4, 4 and 8. ZeRO divides by the ranks:
the optimizer from stage 1, gradients from stage 2, weights from stage 3 (Rajbhandari et al. 2020,
table 1). With an offloaded optimizer, ZeRO 1 still adds up all gradients on the GPU, and ZeRO 2
those of the rank's partition; only ZeRO 3 moves them to the host. On top of that come DeepSpeed's
buffers. tests/trainer/test_memory_states.py compares each number with what DeepSpeed allocates in
fake groups of 1, 8, and 16 ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.tasks import MethodRef, Offload, RankResources
from finetune_data.memory.adapter import adapter_parameters, largest_matrix
from finetune_data.memory.shape import ModelShape

# Elements of a reduction, and of weights that ZeRO 3 gathers ahead of use. DeepSpeed's default for
# reductions allocates ten times this.
BUCKET = 50_000_000
# Elements that ZeRO 3 updates at a time. DeepSpeed's default copies the gradients of 10⁹ elements.
SUB_GROUP = 100_000_000
NORM_CHUNK = 250_000_000  # elements of a gradient that DeepSpeed converts to fp64 at a time
LIVE_LAYERS = 2  # with activation checkpointing, a layer's weights are used twice in this distance


def live_parameters(shape: ModelShape | None) -> int:
    """Elements of weights that ZeRO 3 may keep gathered, next to those in use.

    DeepSpeed's default of 10⁹ elements is 2 GB, whatever the size of a layer.
    """
    return 10**9 if shape is None else LIVE_LAYERS * layer_parameters(shape)


def layer_parameters(shape: ModelShape) -> int:
    """The parameters of a layer, or slightly more: the head may have its own table."""
    return (shape.parameters - shape.vocabulary * shape.hidden) // shape.layers


def weight_bytes(workers: RankResources) -> int:
    """Bytes of one weight: bf16 on GPUs, fp32 on CPU."""
    return 2 if workers.accelerator == "nvidia" else 4


@dataclass(frozen=True)
class States:
    """Peak bytes of one rank on its device, without activations and the head's gradient."""

    start: float  # before the first step, and after a resume
    backward: float  # of all micro-batches, with the reduction
    step: float  # of the optimizer


def states(
    shape: ModelShape,
    workers: RankResources,
    method: MethodRef,
    *,
    zero_stage: int,
    offload: Offload,
) -> States:
    """The bytes of the weights, the gradients, the optimizer, and DeepSpeed's buffers."""
    if workers.accelerator == "nvidia":
        return states_in_bf16(shape, method, workers.ranks, zero_stage, offload)
    return _states_in_fp32(shape, trained_parameters(shape, method), workers.ranks, zero_stage)


def states_in_bf16(
    shape: ModelShape, method: MethodRef, ranks: int, zero_stage: int, offload: Offload
) -> States:
    """On GPUs."""
    trained, largest = trained_parameters(shape, method), largest_trained(shape, method)
    if zero_stage == 3:
        return _zero_3(shape, method, ranks, offload)
    stage = max(1, zero_stage)  # the engine makes ZeRO 1 of ZeRO 0
    weights = 2.0 * all_parameters(shape, method)
    share = trained / ranks
    pending = pending_gradient_bytes(stage, offload, ranks) * trained
    bucket = 0.0
    if stage == 2 or offload != "none":
        bucket = (2.0 if stage == 2 else 4.0) * BUCKET
    if offload == "none":
        start = weights + 12 * share + (4 * trained if stage == 1 else 0)
    else:
        start = weights + 2 * largest  # a buffer for the gradient of any parameter
    # The gradient of a large parameter is reduced in fp32. With offload, the norm of the rank's
    # part of it is computed in fp64.
    reduction = max(6.0 * largest, 4.0 * min(BUCKET, trained)) if stage == 2 else 0.0
    if offload != "none":
        norm = 8 * min(largest, share)
        if stage == 2:  # by then, the bf16 gradients of the partition are gone, except this one
            norm += 2 * largest - 2 * share
        reduction = max(reduction, norm)
    extra = max(0.0, reduction - head_gradient_bytes(shape, method))
    return States(start, start + pending + bucket + extra, start + pending + bucket)


def head_gradient_bytes(shape: ModelShape, method: MethodRef) -> float:
    """Bytes of the gradient of the head in fp32 and in bf16, which count as activations.

    The head computes its gradient before any other gradient exists.
    """
    return 6.0 * shape.vocabulary * shape.hidden if method.type == "full" else 0.0


def pending_gradient_bytes(zero_stage: int, offload: Offload, ranks: int) -> float:
    """Bytes per trained parameter that the first step allocates on the GPU for gradients, in bf16.

    Without offload, ZeRO 1 and 3 allocate their fp32 gradients before the first step. ZeRO 2 does
    so in the first backward pass, in which the bf16 gradients of the rank's partition exist, too,
    of parameters that are larger than a bucket. With offload, ZeRO 1 adds up all gradients on the
    GPU and keeps a copy of the rank's partition, and ZeRO 3 adds them up on the host.
    """
    if zero_stage == 2:
        return 6 / ranks
    return 4 + 4 / ranks if zero_stage < 2 and offload != "none" else 0.0


def _zero_3(shape: ModelShape, method: MethodRef, ranks: int, offload: Offload) -> States:
    share = trained_parameters(shape, method) / ranks
    largest = largest_trained(shape, method)
    part = largest / ranks
    start = 4.0 * BUCKET
    if offload != "parameters":
        start += 2.0 * all_parameters(shape, method) / ranks
    step = start
    if offload == "none":
        start += 16 * share
        # fp32 gradients of a sub-group are copied, and the norm of a part is computed in fp64
        step = start + max(4 * min(share, SUB_GROUP + part), 8 * part)
    reduction = 6.0 * largest
    if largest % ranks:
        reduction += 4.0 * largest  # a padded copy
    reduction = max(reduction, 4.0 * min(BUCKET, share * ranks))
    if offload != "none":  # the norm is computed before the gradients leave the GPU
        reduction += 4 * part + 8 * min(part, NORM_CHUNK)
    extra = max(0.0, reduction - head_gradient_bytes(shape, method))
    gathered = 0.0  # one rank uses its weights where they are
    if ranks > 1 or offload == "parameters":
        gathered = gathered_bytes(shape, method, ranks)
    return States(start, start + gathered + extra, step)


def gathered_bytes(shape: ModelShape, method: MethodRef, ranks: int) -> float:
    """Bytes of the weights that ZeRO 3 has gathered at most, next to the head's gradient.

    Several ranks gather weights ahead until they exceed a bucket, so that one matrix may be too
    much; one rank, which copies them from the host, was measured to have fewer. The head is still
    gathered when the backward pass begins, but not its gradient. A head that shares the weights of
    the embeddings was measured to count toward the limit of gathered weights.
    """
    matrix = shape.hidden * max(shape.inner, 2 * shape.experts * shape.expert_inner)
    live, head = live_parameters(shape), shape.vocabulary * shape.hidden
    ahead = live + (matrix or layer_parameters(shape)) + (BUCKET if ranks > 1 else 0)
    if shape.tied and head <= live:
        head = max(0, head - layer_parameters(shape))
    with_head = 2.0 * (ahead + head)
    most = 2.0 * max(ahead, largest_tensor(shape))
    return max(most, with_head - head_gradient_bytes(shape, method))


def _states_in_fp32(shape: ModelShape, trained: int, ranks: int, zero_stage: int) -> States:
    """On CPU, where nothing is offloaded and ZeRO 0 is DeepSpeed's plain data parallelism."""
    weights, gradients, optimizer = 4.0 * shape.parameters, 4.0 * trained, 8.0 * trained
    if zero_stage >= 1:
        optimizer /= ranks
    if zero_stage >= 2:
        gradients /= ranks
    if zero_stage >= 3:
        weights = weights / ranks + 2 * 4 * layer_parameters(shape)
    whole = weights + gradients + optimizer
    return States(whole, whole, whole)


def pinned_bytes(
    shape: ModelShape,
    workers: RankResources,
    method: MethodRef,
    *,
    zero_stage: int,
    offload: Offload,
) -> float:
    """Bytes of one rank that an offload mode keeps in the host's memory; 0 without offload."""
    if offload == "none":
        return 0.0
    trained = trained_parameters(shape, method)
    share = trained / workers.ranks
    if zero_stage < 3:
        # fp32 weights, moments, and gradients; bf16 weights; and a buffer for any gradient
        return 18 * share + 2 * largest_trained(shape, method)
    # fp32 weights, moments, gradients, and their copy for the optimizer
    weights = weight_bytes(workers) * shape.parameters / workers.ranks
    return 20 * share + (weights if offload == "parameters" else 0.0)


def trained_parameters(shape: ModelShape, method: MethodRef) -> int:
    """The number of parameters that the method trains."""
    return shape.parameters if method.type == "full" else adapter_parameters(shape, method)


def all_parameters(shape: ModelShape, method: MethodRef) -> int:
    """The number of parameters of the model and of its adapter."""
    return shape.parameters + (0 if method.type == "full" else adapter_parameters(shape, method))


def largest_trained(shape: ModelShape, method: MethodRef) -> int:
    """The elements of the largest parameter that the method trains."""
    if method.type == "full":
        return largest_tensor(shape)
    return largest_matrix(shape, method)


def largest_tensor(shape: ModelShape) -> int:
    """The number of elements of the largest tensor: the embeddings, or the experts of a layer."""
    experts = layer_parameters(shape) if shape.idle else 0
    return max(shape.vocabulary * shape.hidden, experts)
