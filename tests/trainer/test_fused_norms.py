"""Fused norms give the results of the model's own code, or are not used.

torch has the fused kernels for GPUs only. On a CPU, the same function computes the same formula.
"""

from typing import Any

import pytest
import torch

from finetune_trainer.batching import microbatch
from finetune_trainer.engine import fused_norms
from finetune_trainer.engine.compute_path import choose_compute_path
from finetune_trainer.engine.objective import ComputePath, Objective, arguments
from tests.trainer import support
from tests.trainer.architectures import model_of
from tests.trainer.one_rank import OneRank

FUSED = ComputePath(is_chunked=True, is_packed=True, is_fused=True)


@pytest.mark.parametrize(
    ("kind", "changes", "is_fused"),
    [
        ("llama", {}, True),
        ("qwen2", {}, True),
        ("qwen3", {}, True),  # also over the width of a head
        ("olmo2", {}, True),
        ("mistral", {"sliding_window": None}, True),
        ("phi3", {}, True),
        ("granite", {"logits_scaling": 4.0}, True),
        ("gemma", {}, False),  # scales by 1 + weight
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, False),  # LayerNorm
        ("cohere", {"logit_scale": 0.3}, False),  # LayerNorm without a bias
    ],
)
def test_the_trial_uses_fused_norms_where_they_compute_the_same(
    kind: str, changes: dict[str, Any], is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_norms, "is_available", lambda device: True)
    model = model_of(kind, changes)
    for norm in fused_norms.norms(model):  # as a trained model: weights that are not all one
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    engine: Any = OneRank(model)
    warnings: list[str] = []
    found = choose_compute_path(engine, longest=40, warn=warnings.append)
    assert (found.is_packed, found.is_chunked, warnings) == (True, True, [])
    assert found.is_fused is is_fused
    assert any("forward" in module.__dict__ for module in model.modules()) is is_fused


def test_a_cpu_uses_the_model_s_own_norms() -> None:
    engine: Any = OneRank(support.tiny_llama())
    found = choose_compute_path(engine, longest=40, warn=pytest.fail)
    assert found == ComputePath(is_chunked=True, is_packed=True)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_those_of_the_model_s_own_norms(precision: Any) -> None:
    """In bf16, the fused kernel rounds once less, so that both differ from fp32 equally much."""
    expected = gradients(support.tiny_llama(), ComputePath(is_chunked=True, is_packed=True))
    own, fused = (
        gradients(support.tiny_llama().to(precision), path)
        for path in (ComputePath(is_chunked=True, is_packed=True), FUSED)
    )
    if precision == torch.float32:
        assert distance(fused, expected) < 1e-6
    else:
        assert distance(fused, expected) < 1.2 * distance(own, expected)
        assert distance(own, expected) < 0.05


def test_a_model_gets_its_own_norms_back() -> None:
    model = support.tiny_llama()
    objective = Objective(model)
    before = gradients(model, ComputePath(is_chunked=True, is_packed=True))
    objective.choose(FUSED)
    objective.choose(ComputePath())
    assert not any("forward" in module.__dict__ for module in model.modules())
    again = gradients(model, ComputePath(is_chunked=True, is_packed=True))
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_a_model_without_such_norms_is_left_as_it_was() -> None:
    objective = Objective(model_of("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}))
    with pytest.raises(ValueError, match="RMSNorm"):
        objective.choose(FUSED)
    assert objective.compute_path == ComputePath()
    assert objective.config._attn_implementation != "finetune_packed"


def gradients(model: Any, path: ComputePath) -> dict[str, Any]:
    objective = Objective(model.train())
    from finetune_trainer.engine import attention

    attention.register()
    objective.choose(path)
    split = support.split_of(support.random_examples(6, seed=8, longest=40))
    batch = microbatch.assemble(split, range(6), packed=True, prompts=True)
    objective(*arguments(batch, 1.0, torch.device("cpu")))[0].backward()
    found = {name: p.grad.double() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


def distance(left: dict[str, Any], right: dict[str, Any]) -> float:
    whole = sum(tensor.square().sum() for tensor in right.values())
    return float((sum((left[n] - right[n]).square().sum() for n in right) / whole) ** 0.5)
