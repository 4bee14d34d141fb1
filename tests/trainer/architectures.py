"""Tiny models of many architectures, with random weights."""

from pathlib import Path
from typing import Any

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# The type of the model, and its differences from SMALL.
DENSE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "tied llama": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral with a window": ("mistral", {"sliding_window": 16}),
    "mistral with a wide window": ("mistral", {"sliding_window": 4096}),
    "gemma2, which caps scores and logits": ("gemma2", {}),
    "gemma3": ("gemma3_text", {"sliding_window": 16}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gpt_neox": ("gpt_neox", {}),
    "phi3": ("phi3", {}),
    "phi, whose head has a bias": ("phi", {}),
    "cohere, which scales its logits": ("cohere", {"logit_scale": 0.3}),
    "granite, which divides them": ("granite", {"logits_scaling": 4.0}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom, whose attention is its own": ("bloom", {"n_layer": 2, "n_head": 4}),
    "olmo2": ("olmo2", {}),
    "mamba, which has no attention": ("mamba", {"state_size": 4}),
}
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
# Models whose files have one tensor for each expert, and which have one for all of a layer.
MIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "qwen2_moe, with a shared expert": (
        "qwen2_moe",
        {**EXPERTS, "shared_expert_intermediate_size": 32},
    ),
    "qwen3_moe": ("qwen3_moe", EXPERTS),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v3": (
        "deepseek_v3",
        {
            "moe_intermediate_size": 24,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "num_key_value_heads": 4,
        },
    ),
}
SCALED_ROTARY = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
}
# Other ways to compute buffers, and more families.
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with scaled frequencies": ("llama", SCALED_ROTARY),
    "smollm3": ("smollm3", {}),
    "gptj": ("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "stablelm": ("stablelm", {}),
    "starcoder2": ("starcoder2", {}),
    "glm4": ("glm4", {"partial_rotary_factor": 0.5}),
    "gpt_oss": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "jamba, with state and experts": (
        "jamba",
        {"num_experts": 4, "mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}),
    "mpt": ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2}),
}
ALL = {**DENSE, **MIXTURES, **MORE}


def model_of(kind: str, changes: dict[str, Any]) -> Any:
    """A model in fp32 whose matrices are large enough that a leak between examples would show."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **changes}))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


def save_both_tied(folder: Path, *, are_equal: bool) -> None:
    """Save a llama whose config ties the head to the embeddings, and whose file has both."""
    from safetensors.torch import load_file, save_file

    model_of("llama", {"tie_word_embeddings": True}).save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    head = tensors["model.embed_tokens.weight"].clone()
    tensors["lm_head.weight"] = head if are_equal else head + 1
    save_file(tensors, file, metadata={"format": "pt"})
