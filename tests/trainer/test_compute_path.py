"""Each architecture computes the same numbers on every compute path."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.batching import microbatch
from finetune_trainer.engine import attention, compute_path
from finetune_trainer.engine.compute_path import choose_compute_path
from finetune_trainer.engine.objective import ComputePath, Objective, arguments
from tests.trainer import support
from tests.trainer.one_rank import OneRank

PACKED, PADDED = ComputePath(is_chunked=True, is_packed=True), ComputePath(is_chunked=True)
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
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], ComputePath]] = {
    "llama": ("llama", {}, PACKED),
    "tied llama": ("llama", {"tie_word_embeddings": True}, PACKED),
    "qwen2": ("qwen2", {}, PACKED),
    "qwen3": ("qwen3", {}, PACKED),
    "mistral": ("mistral", {"sliding_window": None}, PACKED),
    "mistral with a window": ("mistral", {"sliding_window": 16}, PADDED),
    "mistral with a wide window": ("mistral", {"sliding_window": 4096}, PACKED),
    "gemma2, which caps scores and logits": ("gemma2", {}, PADDED),
    "gemma3": ("gemma3_text", {"sliding_window": 16}, PADDED),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, PACKED),
    "gpt_neox": ("gpt_neox", {}, PACKED),
    "phi3": ("phi3", {}, PACKED),
    "phi, whose head has a bias": ("phi", {}, ComputePath(is_packed=True)),
    "cohere, which scales its logits": ("cohere", {"logit_scale": 0.3}, PACKED),
    "granite, which divides them": ("granite", {"logits_scaling": 4.0}, PACKED),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, PACKED),
    "bloom, whose attention is its own": ("bloom", {"n_layer": 2, "n_head": 4}, PADDED),
    "olmo2": ("olmo2", {}, PACKED),
    "mamba, which has no attention": ("mamba", {"state_size": 4}, PADDED),
}


def model_of(kind: str, changes: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **changes}))
    for parameter in model.parameters():  # so that a leak would show
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_fastest_exact_path_of_each_architecture_is_chosen(name: str) -> None:
    kind, changes, wanted = ARCHITECTURES[name]
    model = model_of(kind, changes)
    engine: Any = OneRank(model)
    warnings: list[str] = []
    assert choose_compute_path(engine, longest=40, warn=warnings.append) == wanted, warnings
    assert len(warnings) == (not wanted.is_packed) + (not wanted.is_chunked)
    assert engine.compute_path == wanted
    assert model.training
    examples = support.random_examples(5, seed=8, longest=40)
    split = support.split_of(examples)
    batch = microbatch.assemble(split, range(5), packed=wanted.is_packed, prompts=True)
    model.eval()
    with torch.no_grad():
        found = engine.predict(batch, 1.0)[1]
        engine.objective.choose(ComputePath())
        for index, (prompt, completion) in enumerate(examples):
            tokens = torch.tensor([prompt + completion])
            truth = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            assert float(found[batch.owners == index].mean()) == pytest.approx(
                float(truth), rel=1e-4
            )


def test_a_packed_neighbor_changes_no_logit() -> None:
    attention.register()
    objective = Objective(support.tiny_llama().eval())
    objective.choose(ComputePath(is_packed=True))
    one, two, other = ([5, 9, 11, 40, 7, 2], [8, 30, 2], [44, 45, 46])

    def logits(*examples: list[int]) -> torch.Tensor:
        """The logits of the first example."""
        split = support.split_of([([], example) for example in examples])
        batch = microbatch.assemble(split, range(len(examples)), packed=True, prompts=True)
        inputs, positions, *_, packing = arguments(batch, 1.0, torch.device("cpu"))
        assert [b - a for a, b in pairwise(packing["bounds"])] == [len(e) - 1 for e in examples]
        with torch.no_grad():
            found = objective.model(
                input_ids=inputs, position_ids=positions, use_cache=False, **packing
            ).logits
        return found[0, : len(examples[0]) - 1]

    alone = logits(one)
    # The same length: CPUs may compute a matrix with other rows in another order.
    assert torch.equal(logits(one, two), logits(one, other))
    assert (logits(one, two, other) - alone).abs().max() < 1e-6
    split = support.split_of([([], two), ([], one)])
    batch = microbatch.assemble(split, [0, 1], packed=True, prompts=True)
    with torch.no_grad():
        behind = objective(*arguments(batch, 1.0, torch.device("cpu")))[1][2:]
    nll = -alone.log_softmax(-1)[np.arange(5), torch.tensor(one[1:])]
    assert (behind - nll).abs().max() < 1e-6


def test_a_path_that_attends_across_examples_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(*args: Any, **named: Any) -> Any:
        named["bounds"] = (0, named["bounds"][-1])
        return attention.packed_attention(*args, **named)

    from transformers import AttentionInterface

    monkeypatch.setattr(compute_path.attention, "register", lambda: None)
    AttentionInterface.register(attention.NAME, leaking)
    warnings: list[str] = []
    engine: Any = OneRank(model_of("llama", {}))
    assert choose_compute_path(engine, longest=40, warn=warnings.append) == PADDED
    assert "the losses differ by" in warnings[0]
    attention.register()
    monkeypatch.undo()


def test_packing_can_be_disabled() -> None:
    warnings: list[str] = []
    engine: Any = OneRank(support.tiny_llama())
    assert choose_compute_path(engine, longest=40, warn=warnings.append, packing=False) == PADDED
    assert warnings == []
