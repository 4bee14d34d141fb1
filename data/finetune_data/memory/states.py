"""Estimates the weights, gradients, and optimizer state of one rank.

Bytes per parameter, trained in bf16 with AdamW: 2 weights, 4 gradients (accumulated in fp32), 12
optimizer (fp32 weights and two moments); in fp32 on CPU: 4, 4 and 8. ZeRO divides by the ranks:
the optimizer from stage 1, gradients from stage 2, weights from stage 3 (Rajbhandari et al. 2020,
table 1). With an offloaded optimizer, ZeRO 1 still adds up all gradients on the GPU, and ZeRO 2
those of the rank's partition; only ZeRO 3 moves them to the host.
"""

from __future__ import annotations

from finetune_api.tasks import MethodRef, Offload, RankResources
from finetune_data.memory.shape import ModelShape


def weight_bytes(workers: RankResources) -> int:
    """Bytes of one weight: bf16 on GPUs, fp32 on CPU."""
    return 2 if workers.accelerator == "nvidia" else 4


def state_bytes(
    shape: ModelShape,
    workers: RankResources,
    method: MethodRef,
    *,
    zero_stage: int,
    offload: Offload,
) -> float:
    """Peak bytes of one rank on its device, without activations."""
    weight = weight_bytes(workers)
    gradient, optimizer = (4, 12) if workers.accelerator == "nvidia" else (4, 8)
    ranks = workers.ranks
    trained = trained_parameters(shape, method)
    weights = float(weight * shape.parameters)
    gradients, states = float(gradient * trained), float(optimizer * trained)
    if zero_stage >= 3:
        layer = weight * shape.parameters / shape.layers
        weights = weights / ranks + 2 * layer  # the current layer, and the next one
    if zero_stage >= 2:
        gradients /= ranks
    if zero_stage >= 1:
        states /= ranks
    if offload != "none":
        states = 0.0
        if zero_stage < 2:
            gradients += gradients / ranks  # all of them, and a copy of the rank's partition
        elif zero_stage == 3:
            gradients = 0.0  # moved to the host bucket by bucket
    if offload == "parameters":
        weights = 2 * weight * shape.parameters / shape.layers
    return weights + gradients + states


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
    states = (16 if zero_stage == 3 else 12) * trained / workers.ranks
    weights = 0.0
    if offload == "parameters":
        weights = weight_bytes(workers) * shape.parameters / workers.ranks
    return states + weights


def trained_parameters(shape: ModelShape, method: MethodRef) -> int:
    """The number of parameters that the method trains."""
    return shape.parameters if method.type == "full" else _adapter(shape, method)


def _adapter(shape: ModelShape, method: MethodRef) -> int:
    """Parameters of LoRA: two thin matrices for each of a layer's seven linear layers.

    Both matrices together are about three hidden sizes wide.
    """
    return shape.layers * 7 * method.rank * 3 * shape.hidden
