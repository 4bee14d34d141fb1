"""The peak FLOP/s and memory of a GPU, and its model FLOPs utilization (MFU).

The peaks are those of NVIDIA's data sheets (L4, L40, L40S, A10, A30, A40, A100, A800, H20, H100,
H200, GH200, GB200, HGX B200 and B300), of AWS for its A10G (g5 instances), and of the white papers
of the Ada and RTX Blackwell architectures: matrix products of bf16 with sums in fp32, without
sparsity. Where a data sheet has only the figure with sparsity, it is halved.
"""

import re

import numpy as np

from finetune_api.tasks import TrainTask
from finetune_data.memory.shape import ModelShape
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer.engine.deepspeed import Engine

# Peak dense bf16 FLOP/s of one GPU, by the GPU's name without the words of IGNORED.
PEAKS = {
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "A10": 125e12,
    "A10G": 70e12,
    "A30": 165e12,
    "A40": 149.7e12,
    "A100": 312e12,
    "A100 PCIE": 312e12,
    "A800": 312e12,
    "A800 PCIE": 312e12,
    "H20": 148e12,
    "H100": 989e12,
    "H100 PCIE": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "GB200": 2500e12,
    "B300": 2250e12,
    "GEFORCE RTX 4090": 165e12,
    "GEFORCE RTX 5090": 209.5e12,
    "RTX 6000 ADA GENERATION": 364e12,
    "RTX PRO 6000 BLACKWELL WORKSTATION EDITION": 503.8e12,
}
# The vendor, the socket, and the size and kind of memory, which do not change the peak.
IGNORED = re.compile(r"NVIDIA|SXM\d|AC|\d+GB?|HBM3E?")


def peak_of(name: str) -> float | None:
    """The peak FLOP/s of a GPU by its name in nvidia-smi; None: unknown, and MFU is not reported.

    Only exact names match: laptop models, MIG slices, and cut-down models have other peaks.
    """
    words = re.split(r"[ -]", name.upper())
    return PEAKS.get(" ".join(word for word in words if not IGNORED.fullmatch(word)))


def flops_per_token(
    shape: ModelShape, *, tied: bool, attended: float, trains_everything: bool
) -> float:
    """FLOPs of the matrix products for one trained token, forward and backward: 6N + 12·L·d·s.

    N: parameters in matrix products, which excludes the input embeddings unless they are also the
    head, and the experts that a token is not routed to; L: layers of width d; s: attended tokens on
    average (Chowdhery et al. 2022, appendix B, with s measured instead of assumed). An adapter
    needs no gradients of the other weights: 4N. Recomputed activations do not count.
    """
    embeddings = 0 if tied else shape.vocabulary * shape.hidden
    multiplying = shape.parameters - shape.idle - embeddings
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
