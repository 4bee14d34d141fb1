"""A GPU's memory, and how much of what it can compute is used (MFU)."""

import numpy as np

from finetune_api.tasks import TrainTask
from finetune_data.models.memory_model import ModelShape
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer.engine.deepspeed import Engine

# Dense bf16 of one GPU, FLOP/s, from the makers' data sheets; by a part of its name.
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
    """FLOP/s of the GPU of that name; None: unknown, and then nothing is claimed."""
    return next(
        (PEAKS[part] for part in sorted(PEAKS, key=len, reverse=True) if part in name), None
    )


def flops_a_token(
    shape: ModelShape, *, tied: bool, attended: float, trains_everything: bool
) -> float:
    """Of the matrix products that one trained token needs, forward and backward.

    (6N + 12·L·d·s): N parameters that multiply, which the input embeddings do not unless they are
    the head as well; L layers of width d; s tokens attended to on average (Chowdhery et al. 2022,
    appendix B, with s counted and not assumed). An adapter leaves out the gradients of the
    weights: 4N. Computing activations twice counts nothing.
    """
    multiplying = shape.parameters - (0 if tied else shape.vocabulary * shape.hidden)
    factor = 6 if trains_everything else 4
    return factor * multiplying + 12 * shape.layers * shape.hidden * attended


def mean_attended(split: TokenSplit) -> float:
    """Tokens that a token attends to, itself and earlier ones of its example, on average."""
    lengths = split.lengths.astype(np.float64)
    return float((lengths * (lengths + 1)).sum() / 2 / max(1.0, lengths.sum()))


class Gpu:
    """This rank's."""

    def __init__(self, task: TrainTask, engine: Engine, split: TokenSplit) -> None:
        import torch

        config = engine.objective.config
        shape = ModelShape.of(config.to_dict(), None)
        peak = peak_of(torch.cuda.get_device_name())
        self._flops = None
        if shape is not None and peak is not None:
            flops = flops_a_token(
                shape,
                tied=bool(config.tie_word_embeddings),
                attended=mean_attended(split),
                trains_everything=task.method.type == "full",
            )
            self._flops = flops / peak / engine.coordinates.ranks

    def utilization(self, tokens_a_second: float) -> float | None:
        """0 to 1 at so many tokens a second over all ranks; None: the GPU's peak is unknown."""
        return None if self._flops is None else self._flops * tokens_a_second

    def peak_bytes(self) -> float:
        """The most memory that tensors held so far."""
        import torch

        return float(torch.cuda.max_memory_allocated())
