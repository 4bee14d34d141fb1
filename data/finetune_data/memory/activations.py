"""Estimates the activations of a micro-batch."""

from __future__ import annotations

from finetune_data.memory.shape import ModelShape

CHUNK_TOKENS = 2048  # of logits at a time
LAYER_FACTOR = 34


def activation_bytes(shape: ModelShape, tokens: int, width: int) -> float:
    """Peak bytes with activation checkpointing. width: bytes of a value.

    Every layer's input, 34·tokens·hidden bytes of the one layer that is recomputed (Korthikanti et
    al. 2022, equation 2, without attention scores, which flash kernels never store), and one chunk
    of logits.
    """
    layers = shape.layers * tokens * shape.hidden * width
    one = LAYER_FACTOR * tokens * shape.hidden * width / 2
    logits = min(tokens, CHUNK_TOKENS) * shape.vocabulary * (width + 4 + 4)
    return float(layers + one + logits)
