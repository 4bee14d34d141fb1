"""Tiny models of families whose files differ from their weights in memory, each in its own way."""

from collections.abc import Callable
from typing import Any

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def _llama(*, tied: bool) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=tied)
    )


def _gpt2() -> Any:
    """Linear layers are Conv1D, which holds its weights transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4))


def _gpt_neox() -> Any:
    """One projection is three in memory, or the reverse, and biases are everywhere."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, intermediate_size=48))


def _mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(**SIZES, intermediate_size=16, num_key_value_heads=2, num_local_experts=3)
    )


def _qwen3_moe() -> Any:
    """The first layer is dense, and the second has experts."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **SIZES,
            intermediate_size=48,
            moe_intermediate_size=16,
            num_key_value_heads=2,
            head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            mlp_only_layers=[0],
        )
    )


def _deepseek_v3() -> Any:
    """Experts, a shared expert, and a buffer in the files."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    return DeepseekV3ForCausalLM(
        DeepseekV3Config(
            **SIZES,
            intermediate_size=48,
            moe_intermediate_size=16,
            num_key_value_heads=4,
            n_routed_experts=4,
            n_group=2,
            topk_group=1,
            num_experts_per_tok=2,
            first_k_dense_replace=1,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
        )
    )


def _granite_moe() -> Any:
    from transformers import GraniteMoeConfig, GraniteMoeForCausalLM

    return GraniteMoeForCausalLM(
        GraniteMoeConfig(**SIZES, intermediate_size=16, num_key_value_heads=2, num_local_experts=4)
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: _llama(tied=False),
    "llama-tied": lambda: _llama(tied=True),
    "gpt2": _gpt2,
    "gpt-neox": _gpt_neox,
    "mixtral": _mixtral,
    "qwen3-moe": _qwen3_moe,
    "deepseek-v3": _deepseek_v3,
    "granite-moe": _granite_moe,
}


def made(family: str, seed: int = 0) -> Any:
    """A model whose weights, biases and norms included, are random."""
    import torch

    torch.manual_seed(seed)
    model = FAMILIES[family]()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) / 16)
    return model
