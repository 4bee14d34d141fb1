"""The parameters that are counted from a config, compared with the models of transformers."""

from typing import Any

import pytest

from finetune_data.memory.shape import ModelShape

pytestmark = pytest.mark.slow  # torch and transformers build each model on the meta device

# The differences of published models from the defaults of their classes.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3-30B-A3B": (
        "qwen3_moe",
        {
            "num_hidden_layers": 48,
            "head_dim": 128,
            "num_experts": 128,
            "moe_intermediate_size": 768,
        },
    ),
    "Qwen3 with dense layers": ("qwen3_moe", {"mlp_only_layers": [0, 3], "decoder_sparse_step": 2}),
    "Mixtral-8x7B": ("mixtral", {}),
    "OLMoE-1B-7B": ("olmoe", {"intermediate_size": 1024}),
    "Qwen2-MoE with a shared expert": ("qwen2_moe", {"moe_intermediate_size": 1408}),
    "Qwen3-8B": (
        "qwen3",
        {"num_hidden_layers": 36, "num_key_value_heads": 8, "intermediate_size": 12288},
    ),
    "Gemma-2-2B": ("gemma2", {"tie_word_embeddings": True}),
}


def meta_model(name: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, changes = CONFIGS[name]
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **changes))


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_from_the_config_are_those_of_the_model(name: str) -> None:
    model = meta_model(name)
    shape = ModelShape.of(model.config.to_dict(), None)
    assert shape is not None
    assert shape.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_token_uses_the_parameters_of_its_experts_only(name: str) -> None:
    model = meta_model(name)
    config = model.config
    shape = ModelShape.of(config.to_dict(), None)
    assert shape is not None
    experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    number = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", 1)
    idle = experts * (1 - getattr(config, "num_experts_per_tok", number) / number)
    assert shape.idle == pytest.approx(idle, rel=1e-9)


def test_published_sizes() -> None:
    shape = ModelShape.of(meta_model("Qwen3-30B-A3B").config.to_dict(), None)
    assert shape is not None
    assert round(shape.parameters / 1e9, 1) == 30.5
    assert round((shape.parameters - shape.idle) / 1e9, 2) == 3.35


def test_a_size_from_the_files_keeps_the_idle_experts() -> None:
    config = {
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "vocab_size": 151936,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "torch_dtype": "bfloat16",
    }  # as in a config.json
    shape = ModelShape.of(config, 61_064_000_000)
    assert shape is not None
    assert shape.parameters == 30_532_000_000
    assert shape.idle == 48 * 120 * 3 * 2048 * 768
