"""Loaded weights and buffers are those of transformers, bit by bit; other weights are an error."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_trainer.engine.loading import load_for_training, load_model
from tests.trainer import architectures, support
from tests.trainer.loaded import differences, expected_state, state_of_model

pytestmark = pytest.mark.slow  # it builds and loads 34 architectures

WEIGHTS = "model.safetensors"


def load(folder: Path, precision: Any = "fp32", **options: Any) -> Any:
    usual: dict[str, Any] = {"zero_stage": 1, "offload": "none", "ranks": 1, "is_frozen": False}
    return load_for_training(folder, precision, **usual | options)


def change(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add, or remove (None) tensors of the model's file, by name with `__` for dots."""
    tensors = load_file(folder / WEIGHTS)
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["tied llama", "gpt2", "mixtral"])
def test_files_of_the_training_s_precision_and_of_another_one(name: str, tmp_path: Path) -> None:
    model = architectures.model_of(*architectures.ALL[name]).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for precision in ("fp32", "bf16"):
        found = state_of_model(load(tmp_path, precision))
        assert differences(found, expected_state(tmp_path, precision)) == []
    weights = {name: p.detach() for name, p in load(tmp_path, "bf16").named_parameters()}
    assert differences(weights, {n: p.detach() for n, p in model.named_parameters()}) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.ALL)
def test_each_architecture(name: str, tmp_path: Path) -> None:
    model = architectures.model_of(*architectures.ALL[name])
    model.save_pretrained(tmp_path)
    for precision in ("fp32", "bf16"):
        found = state_of_model(load(tmp_path, precision))
        assert differences(found, expected_state(tmp_path, precision)) == []
    assert differences(state_of_model(load(tmp_path)), state_of_model(model)) == []


@pytest.mark.parametrize("are_equal", [True, False])
def test_weights_that_should_be_tied_are_only_if_they_are_equal(
    are_equal: bool, tmp_path: Path
) -> None:
    architectures.save_both_tied(tmp_path, are_equal=are_equal)
    model = load(tmp_path)
    assert differences(state_of_model(model), expected_state(tmp_path, "fp32")) == []
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is are_equal


def test_the_progress_rises_to_100_percent_and_garbage_collection_is_enabled(
    tmp_path: Path,
) -> None:
    support.tiny_llama(tied=True).save_pretrained(tmp_path)
    found: list[int] = []
    gc.disable()
    model = load(tmp_path, progress=found.append)
    assert gc.isenabled()
    assert model.training
    assert found[-1] == 100
    assert len(found) > 5
    assert found == sorted(set(found))


NORM = "model__norm__weight"
EXPERT = "model__layers__1__block_sparse_moe__experts__3__w1__weight"


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("llama", {NORM: None}, "model.norm.weight is missing"),
        ("llama", {"lm_head__weight": None}, "lm_head.weight is missing"),
        (
            "llama",
            {NORM: torch.ones(31)},
            "model.norm.weight has the shape [31] instead of [32]",
        ),
        (
            "llama",
            {"model__layers__0__self_attn__q_proj__bias": torch.ones(32)},
            "model.layers.0.self_attn.q_proj.bias is not in the model",
        ),
        ("mixtral", {EXPERT: None}, "the experts of a layer are incomplete"),
        ("mixtral", {EXPERT: torch.ones(47, 32)}, "the experts of a layer are incomplete"),
    ],
    ids=["missing", "missing head", "shape", "unknown", "missing expert", "shape of an expert"],
)
def test_other_weights_are_an_error_before_anything_is_loaded(
    name: str, changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    architectures.model_of(*architectures.ALL[name]).save_pretrained(tmp_path)
    change(tmp_path, **changes)
    seen: list[int] = []
    with pytest.raises(FailureError) as caught:
        load(tmp_path, progress=seen.append)
    failure = caught.value.failure
    assert (failure.code, failure.param) == (Reason.BASE_MODEL_INVALID, "model")
    assert problem in failure.message
    assert "config.json" in failure.message
    assert seen == []
    with pytest.raises(FailureError, match="the weights of the base model do not match"):
        load_model(tmp_path, "fp32")


def test_an_error_names_the_first_weights_only(tmp_path: Path) -> None:
    model = support.tiny_llama()
    model.save_pretrained(tmp_path)
    model.config.num_hidden_layers = 4
    model.config.save_pretrained(tmp_path)
    with pytest.raises(FailureError) as caught:
        load(tmp_path)
    assert "model.layers.2.input_layernorm.weight is missing" in caught.value.failure.message
    assert caught.value.failure.message.endswith("; and 13 more")


def test_buffers_of_older_versions_of_transformers_are_ignored(tmp_path: Path) -> None:
    support.tiny_llama().save_pretrained(tmp_path)
    change(tmp_path, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))
    change(tmp_path, model__layers__0__attn__masked_bias=torch.tensor(-1e4))
    assert differences(state_of_model(load(tmp_path)), expected_state(tmp_path, "fp32")) == []
