"""The parameters of LoRA that are counted from a config, compared with peft's."""

from typing import Any

import pytest

from finetune_api.errors import FailureError
from finetune_api.tasks import MethodRef
from finetune_data.memory.adapter import adapter_parameters, adapts_experts, largest_matrix
from finetune_data.memory.shape import ModelShape

pytestmark = pytest.mark.slow  # peft takes seconds to import

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 8, "moe_intermediate_size": 48}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 32},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 32},
    "olmo2": {},
    "smollm3": {},
    "phi3": {},
    "gpt_neox": {"num_key_value_heads": 4},
    "starcoder2": {},
    "mixtral": {"num_local_experts": 8},
    "qwen3_moe": EXPERTS,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 80},
    "olmoe": {"num_experts": 8},
}
METHOD = MethodRef(type="lora", rank=4, alpha=8)


def sizes(kind: str, method: MethodRef, **changes: Any) -> tuple[ModelShape, list[int]]:
    """The shape of the model, and the number of elements of each matrix of the adapter."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from finetune_trainer.engine.lora import add_adapter

    config = AutoConfig.for_model(kind, **(SIZES | CONFIGS[kind] | changes))
    with torch.device("meta"):
        model = add_adapter(AutoModelForCausalLM.from_config(config), method, seed=0)
    shape = ModelShape.of(model.config.to_dict(), None)
    assert shape is not None
    return shape, [p.numel() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_of_all_linear_layers(kind: str) -> None:
    shape, found = sizes(kind, METHOD)
    assert adapter_parameters(shape, METHOD) == sum(found)
    assert max(found) <= largest_matrix(shape, METHOD) <= 2 * max(found)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["o_proj", "down_proj"]])
def test_an_adapter_of_some_layers(targets: list[str]) -> None:
    method = METHOD.model_copy(update={"targets": targets})
    shape, found = sizes("llama", method)
    assert adapter_parameters(shape, method) == sum(found)


def test_targets_with_unknown_names_count_as_all_layers() -> None:
    method = METHOD.model_copy(update={"targets": ["qkv_proj"]})
    shape, found = sizes("phi3", method)
    assert sum(found) < adapter_parameters(shape, method) == adapter_parameters(shape, METHOD)


def test_dense_layers_between_experts_are_counted_although_peft_leaves_them_out() -> None:
    shape, found = sizes("qwen3_moe", METHOD, mlp_only_layers=[1])
    assert sum(found) < adapter_parameters(shape, METHOD) < 1.1 * sum(found)


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"]], ids=["all", "attention"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_dropout_is_refused_exactly_if_peft_refuses_it(
    kind: str, targets: list[str] | None
) -> None:
    fused = {"gpt_neox": ["query_key_value"], "phi3": ["qkv_proj"]}
    method = METHOD.model_copy(update={"targets": targets and fused.get(kind, targets)})
    shape, _ = sizes(kind, method)
    try:
        sizes(kind, method.model_copy(update={"dropout": 0.1}))
    except FailureError as error:
        assert error.failure.param == "method.dropout"
        assert adapts_experts(shape, method)
    else:
        assert not adapts_experts(shape, method)
