"""The structure of a decoder layer by model type, as far as it determines the activations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Family:
    """What the layers of a model type have. The default is a Llama."""

    # "narrow": an RMSNorm that multiplies by its weight in the model's precision; "wide": in fp32;
    # "layer": torch's LayerNorm
    norm: Literal["narrow", "wide", "layer"] = "narrow"
    norms_before: int = 2  # linear layers read their outputs; otherwise the residual stream
    norms_after: int = 0  # their outputs are added to the residual stream
    normalizes_heads: bool = False  # queries and keys have norms
    is_gated: bool = True  # the feed-forward layer multiplies by an activation
    is_fused: bool = False  # one linear layer for queries, keys, and values
    adapts_experts: bool = True  # LoRA, by peft
    has_biased_head: bool = False  # its logits cannot be computed in chunks
    is_eager: bool = False  # transformers has no kernel for its attention


LLAMA = Family()
QWEN3 = replace(LLAMA, normalizes_heads=True)
GEMMA = replace(LLAMA, norm="wide")
GEMMA2 = replace(GEMMA, norms_after=2, is_eager=True)
OLMO2 = replace(GEMMA, norms_before=0, norms_after=2, normalizes_heads=True)
NEOX = Family(norm="layer", is_gated=False, is_fused=True)
FAMILIES = {
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": replace(GEMMA2, normalizes_heads=True, is_eager=False),
    "gpt2": NEOX,
    "gpt_neox": NEOX,
    "granite": LLAMA,
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": LLAMA,
    "olmo2": OLMO2,
    "olmo3": OLMO2,
    "olmoe": QWEN3,
    "phi": replace(NEOX, is_fused=False, has_biased_head=True),
    "phi3": replace(LLAMA, is_fused=True),
    "qwen2": LLAMA,
    "qwen2_moe": replace(LLAMA, adapts_experts=False),
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3,
    "smollm3": LLAMA,
    "starcoder2": replace(NEOX, is_fused=False),
}
# More than any of the above keeps: the norms of Gemma 2, norms of queries and keys, and a gate.
UNKNOWN = replace(GEMMA2, normalizes_heads=True, is_eager=False, is_fused=True)


def family_of(model_type: str) -> Family:
    """The family of a model type; one that keeps more than any known one if it is not known."""
    return FAMILIES.get(model_type, UNKNOWN)
