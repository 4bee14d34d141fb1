"""The numbers of a base model that the memory estimate and the MFU need, from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a base model that the estimate needs. 0: the config does not have it."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    idle: int = 0  # of `parameters`: those of the experts that a token is not routed to
    model_type: str = ""
    heads: int = 0
    kv_heads: int = 0
    head_size: int = 0
    inner: int = 0  # width of a dense feed-forward layer
    experts: int = 0  # of a sparse layer
    used_experts: int = 0  # by a token
    expert_inner: int = 0
    shared_inner: int = 0  # width of the experts that every token uses
    sparse_layers: int = 0
    tied: bool = False  # the head has the weights of the embeddings
    window: int = 0  # tokens that a layer attends to; 0: all earlier ones
    caps_scores: bool = False  # attention scores pass through a tanh
    caps_logits: bool = False
    activation: str = ""
    has_dropout: bool = False  # the model's own, of what layers add
    drops_scores: bool = False  # in the attention

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
        heads = _number(config, "num_attention_heads", "n_head", default=1)
        kv_heads = _number(config, "num_key_value_heads", default=heads)
        head_size = _number(config, "head_dim", default=hidden // heads)
        model_type = str(config.get("model_type") or "")
        tied = config.get("tie_word_embeddings")
        feed_forward, sparse = _feed_forward(config, hidden, layers)
        if weight_bytes:
            width = BYTES_OF.get(str(config.get("torch_dtype") or config.get("dtype")), 2)
            parameters = weight_bytes // width
        else:
            attention = hidden * head_size * 2 * (heads + kv_heads) + 2 * hidden
            tables = vocabulary * hidden * (1 if tied else 2)
            parameters = layers * attention + feed_forward + tables
        return cls(
            *(parameters, hidden, layers, vocabulary),
            model_type=model_type,
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            tied=model_type.startswith(TIED) if tied is None else bool(tied),
            window=_number(config, "sliding_window") if _has_window(config) else 0,
            caps_scores=bool(config.get("attn_logit_softcapping")),
            caps_logits=bool(config.get("final_logit_softcapping")),
            activation=str(
                _first(config, "hidden_activation", "hidden_act", "activation_function")
            ),
            has_dropout=any(config.get(name) for name in DROPOUTS),
            drops_scores=any(config.get(name) for name in ("attention_dropout", "attn_pdrop")),
            **sparse,
        )


def _number(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), default)


def _first(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name)), "")


def _has_window(config: Mapping[str, Any]) -> bool:
    return config.get("use_sliding_window") is not False


def _feed_forward(
    config: Mapping[str, Any], hidden: int, layers: int
) -> tuple[int, dict[str, int]]:
    """The parameters of all feed-forward layers, and their fields of `ModelShape`."""
    inner = _number(config, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    dense = 3 * hidden * inner
    experts = _number(config, "num_local_experts", "num_experts", "n_routed_experts")
    if not experts:
        return layers * dense, {"inner": inner}
    expert_inner = _number(config, "moe_intermediate_size", default=inner)
    one = 3 * hidden * expert_inner
    used = _number(config, "num_experts_per_tok", default=experts)
    shared_inner = _number(config, "shared_expert_intermediate_size")
    shared_inner += expert_inner * _number(config, "n_shared_experts")
    shared = 3 * hidden * shared_inner
    every, first = _number(config, "decoder_sparse_step", default=1), "first_k_dense_replace"
    dense_layers = set(config.get("mlp_only_layers") or ()) | set(range(_number(config, first)))
    sparse = sum(index not in dense_layers and (index + 1) % every == 0 for index in range(layers))
    total = sparse * (experts * one + shared + experts * hidden) + (layers - sparse) * dense
    return total, {
        "inner": inner,
        "idle": sparse * (experts - used) * one,
        "experts": experts,
        "used_experts": used,
        "expert_inner": expert_inner,
        "shared_inner": shared_inner,
        "sparse_layers": sparse,
    }


BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
TIED = ("gemma", "gpt2", "smollm3")  # their configs leave out tie_word_embeddings, which is true
DROPOUTS = ("hidden_dropout", "resid_pdrop", "residual_dropout")
