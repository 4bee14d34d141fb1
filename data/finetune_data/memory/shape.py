"""The numbers of a base model that the memory estimate and the MFU need, from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a base model that the estimate needs."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    idle: int = 0  # of `parameters`: those of the experts that a token is not routed to

    @classmethod
    def of(cls, config: Mapping[str, Any], weight_bytes: int | None) -> ModelShape | None:
        """The shape from the config's text settings and the size of the weight files.

        None if the config lacks a number. Without the size, the parameters are counted like those
        of a Llama, Mixtral, or Qwen model.
        """
        hidden, layers = (
            _number(config, "hidden_size", "n_embd", "d_model"),
            _number(config, "num_hidden_layers", "n_layer", "num_layers"),
        )
        vocabulary = _number(config, "vocab_size")
        if not (hidden and layers and vocabulary):
            return None
        feed_forward, idle = _feed_forward(config, hidden, layers)
        if weight_bytes:
            width = BYTES_OF.get(str(config.get("torch_dtype") or config.get("dtype")), 2)
            return cls(weight_bytes // width, hidden, layers, vocabulary, idle)
        heads = _number(config, "num_attention_heads", "n_head", default=1)
        groups = _number(config, "num_key_value_heads", default=heads)
        head_width = _number(config, "head_dim", default=hidden // heads)
        attention = hidden * head_width * 2 * (heads + groups) + 2 * hidden
        tables = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
        return cls(layers * attention + feed_forward + tables, hidden, layers, vocabulary, idle)


def _number(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), default)


def _feed_forward(config: Mapping[str, Any], hidden: int, layers: int) -> tuple[int, int]:
    """The parameters of all feed-forward layers, and of the experts that a token does not use."""
    inner = _number(config, "intermediate_size", "n_inner", default=4 * hidden)
    dense = 3 * hidden * inner
    experts = _number(config, "num_local_experts", "num_experts", "n_routed_experts")
    if not experts:
        return layers * dense, 0
    one = 3 * hidden * _number(config, "moe_intermediate_size", default=inner)
    used = _number(config, "num_experts_per_tok", default=experts)
    shared = 3 * hidden * _number(config, "shared_expert_intermediate_size")
    shared += one * _number(config, "n_shared_experts")
    every, first = _number(config, "decoder_sparse_step", default=1), "first_k_dense_replace"
    dense_layers = set(config.get("mlp_only_layers") or ()) | set(range(_number(config, first)))
    sparse = sum(index not in dense_layers and (index + 1) % every == 0 for index in range(layers))
    total = sparse * (experts * one + shared + experts * hidden) + (layers - sparse) * dense
    return total, sparse * (experts - used) * one


BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
