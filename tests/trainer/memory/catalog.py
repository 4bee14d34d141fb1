"""Published models by the settings that differ from the defaults of their classes."""

from __future__ import annotations

from typing import Any

PUBLISHED: dict[str, dict[str, Any]] = {
    "SmolLM2-360M": {  # ada
        "model_type": "llama",
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "SmolLM2-1.7B": {  # babbage
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "SmolLM3-3B": {  # curie
        "model_type": "smollm3",
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
        "pad_token_id": None,
    },
    "OLMo-2-7B": {  # davinci
        "model_type": "olmo2",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 100352,
    },
    "Llama-3.1-8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-7B": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
    "Qwen3-8B": {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    "Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    "Gemma-2-2B": {
        "model_type": "gemma2",
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 256000,
    },
}

# One model for each other family: two layers of each kind are sufficient.
OTHERS: dict[str, dict[str, Any]] = {
    name: {
        "model_type": name,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "vocab_size": 50304,
        **changes,
    }
    for name, changes in {
        "gemma": {"num_key_value_heads": 1, "head_dim": 256},
        "gemma3_text": {"num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096},
        "gpt2": {"attn_pdrop": 0},  # with dropout, a CPU has another kernel than a GPU
        "gpt_neox": {},
        "granite": {"num_key_value_heads": 2},
        "mistral": {"num_key_value_heads": 2, "sliding_window": None},
        "mixtral": {"num_key_value_heads": 2, "num_local_experts": 8},
        "olmo3": {"num_key_value_heads": 8},
        "olmoe": {"num_experts": 16, "num_experts_per_tok": 4, "intermediate_size": 1024},
        "phi": {},
        "phi3": {"num_key_value_heads": 2},
        "qwen2_moe": {"num_key_value_heads": 2, "num_experts": 16, "moe_intermediate_size": 704},
        "starcoder2": {"num_key_value_heads": 2},
    }.items()
}
CONFIGS = PUBLISHED | OTHERS


def config(name: str, layers: int | None = None) -> Any:
    """The configuration of transformers, with another number of layers."""
    from transformers import AutoConfig

    settings = dict(CONFIGS[name])
    if layers is not None:
        settings["num_hidden_layers"] = layers
    return AutoConfig.for_model(settings.pop("model_type"), **settings)
