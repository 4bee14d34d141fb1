"""Each architecture computes the same numbers on every compute path."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from finetune_trainer.batching import microbatch
from finetune_trainer.engine import attention, compute_path
from finetune_trainer.engine.compute_path import choose_compute_path
from finetune_trainer.engine.objective import ComputePath, Objective, arguments
from tests.trainer import architectures, support
from tests.trainer.architectures import model_of
from tests.trainer.one_rank import OneRank

PACKED, PADDED = ComputePath(is_chunked=True, is_packed=True), ComputePath(is_chunked=True)
# The paths of the architectures that do not support all of them.
SLOWER = {
    "mistral with a window": PADDED,
    "gemma2, which caps scores and logits": PADDED,
    "gemma3": PADDED,
    "phi, whose head has a bias": ComputePath(is_packed=True),
    "bloom, whose attention is its own": PADDED,
    "mamba, which has no attention": PADDED,
}


@pytest.mark.parametrize("name", architectures.DENSE)
def test_the_fastest_exact_path_of_each_architecture_is_chosen(name: str) -> None:
    wanted = SLOWER.get(name, PACKED)
    model = model_of(*architectures.DENSE[name])
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
