"""The adapter without DeepSpeed: its layers, its initial weights, and the error for a bad name."""

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.tasks import MethodRef
from finetune_trainer.engine.lora import add_adapter, linear_layers
from tests.trainer import support

LLAMA_LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_all_linear_layers_except_the_head_are_adapted_and_nothing_else_is_trained() -> None:
    model = support.tiny_llama()
    assert linear_layers(model) == LLAMA_LAYERS | {"lm_head"}
    adapted = add_adapter(model, MethodRef(type="lora", rank=2, alpha=4), seed=1)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained} == LLAMA_LAYERS
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)


def test_a_new_adapter_changes_no_output_and_is_reproducible() -> None:
    import torch

    tokens = torch.tensor([[5, 6, 7]])
    plain = support.tiny_llama()(input_ids=tokens, use_cache=False).logits
    method = MethodRef(type="lora", rank=2, alpha=4, targets=["q_proj"])
    one, other = (add_adapter(support.tiny_llama(), method, seed=1) for _ in range(2))
    assert torch.equal(one(input_ids=tokens, use_cache=False).logits, plain)
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_missing_layer_is_a_user_error() -> None:
    method = MethodRef(type="lora", targets=["q_proj", "query"])
    with pytest.raises(FailureError) as caught:
        add_adapter(support.tiny_llama(), method, seed=1)
    failure = caught.value.failure
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "method.targets")
    assert failure.message == "the base model has no linear layer named query"
    assert "q_proj" in (failure.hint or "")


def test_a_layer_that_shares_the_weights_of_the_embeddings_is_a_user_error() -> None:
    """Merged, its adapter would change the embeddings as well."""
    method = MethodRef(type="lora", targets=["q_proj", "lm_head"])
    with pytest.raises(FailureError) as caught:
        add_adapter(support.tiny_llama(tied=True), method, seed=1)
    failure = caught.value.failure
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "method.targets")
    assert "the layer lm_head" in failure.message
    add_adapter(support.tiny_llama(), method, seed=1)


def test_dropout_for_experts_is_a_user_error() -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = {"hidden_size": 8, "moe_intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 2, "vocab_size": 9}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, num_experts_per_tok=1))
    with pytest.raises(FailureError) as caught:
        add_adapter(model, MethodRef(type="lora", dropout=0.1), seed=1)
    failure = caught.value.failure
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "method.dropout")
