"""The peak memory of a GPU, and its model FLOPs utilization (MFU)."""

import numpy as np

from finetune_api.tasks import TrainTask
from finetune_data.models.memory_model import ModelShape
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer.engine.deepspeed import Engine

# Peak dense bf16 FLOP/s of one GPU, from the data sheets, by a part of the GPU's name.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "RTX 4090": 165e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L4": 121e12,
}


def peak_of(name: str) -> float | None:
    """The peak FLOP/s of a GPU by its name; None: unknown, and MFU is not reported."""
    return next(
        (PEAKS[part] for part in sorted(PEAKS, key=len, reverse=True) if part in name), None
    )


def flops_per_token(
    shape: ModelShape, *, tied: bool, attended: float, trains_everything: bool
) -> float:
    """FLOPs of the matrix products for one trained token, forward and backward: 6N + 12·L·d·s.

    N: parameters in matrix products, which excludes the input embeddings unless they are also the
    head; L: layers of width d; s: attended tokens on average (Chowdhery et al. 2022, appendix B,
    with s measured instead of assumed). An adapter needs no gradients of the other weights: 4N.
    Recomputed activations do not count.
    """
    multiplying = shape.parameters - (0 if tied else shape.vocabulary * shape.hidden)
    factor = 6 if trains_everything else 4
    return factor * multiplying + 12 * shape.layers * shape.hidden * attended


def mean_attended(split: TokenSplit) -> float:
    """The average number of tokens that a token attends to: itself and its predecessors."""
    lengths = split.lengths.astype(np.float64)
    return float((lengths * (lengths + 1)).sum() / 2 / max(1.0, lengths.sum()))


class Gpu:
    """The GPU of this rank."""

    def __init__(self, task: TrainTask, engine: Engine, split: TokenSplit) -> None:
        import torch

        config = engine.objective.config
        shape = ModelShape.of(config.to_dict(), None)
        peak = peak_of(torch.cuda.get_device_name())
        self._flops = None
        if shape is not None and peak is not None:
            flops = flops_per_token(
                shape,
                tied=bool(config.tie_word_embeddings),
                attended=mean_attended(split),
                trains_everything=task.method.type == "full",
            )
            self._flops = flops / peak / engine.coordinates.ranks

    def utilization(self, tokens_per_second: float) -> float | None:
        """The MFU, 0 to 1, at this speed over all ranks; None: the GPU's peak is unknown."""
        return None if self._flops is None else self._flops * tokens_per_second

    def peak_bytes(self) -> float:
        """The peak memory of tensors so far."""
        import torch

        return float(torch.cuda.max_memory_allocated())
