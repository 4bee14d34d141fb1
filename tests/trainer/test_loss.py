import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from finetune_trainer.batching.microbatch import MicroBatch, assemble
from finetune_trainer.engine.objective import of_logits
from finetune_trainer.step.loss import Totals, scale, sums
from tests.trainer.support import VOCABULARY, Example, random_examples, split_of

EXAMPLES = random_examples(6, seed=5)


def batch_of(examples: list[Example], *, packed: bool = False) -> MicroBatch:
    return assemble(split_of(examples), list(range(len(examples))), packed=packed, prompts=True)


def totals_of(
    examples: list[Example],
    prompt_weight: float = 0.1,
    logits: torch.Tensor | None = None,
    *,
    packed: bool = False,
) -> Totals:
    return totals(batch_of(examples, packed=packed), prompt_weight, logits)


def totals(batch: MicroBatch, prompt_weight: float, logits: torch.Tensor | None = None) -> Totals:
    """logits [rows, width, vocabulary]."""
    if logits is None:
        logits = logits_for(batch)
    weights = torch.from_numpy(np.where(batch.roles == 2, 1.0, prompt_weight))
    predicted = of_logits(
        logits.flatten(0, 1)[batch.input_indices], torch.from_numpy(batch.targets), weights
    )
    return Totals(*sums(batch, predicted, prompt_weight).tolist())


def logits_for(batch: MicroBatch) -> torch.Tensor:
    """Logits that depend only on each token and its position."""
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(1))
    return table[batch.inputs] + 0.01 * torch.from_numpy(batch.positions).unsqueeze(-1)


def saying(examples: list[Example], predictions: list[list[int]]) -> torch.Tensor:
    """Logits whose argmax over each completion is `predictions`."""
    inputs = batch_of(examples).inputs
    logits = torch.zeros(*inputs.shape, VOCABULARY)
    for row, ((prompt, _), tokens) in enumerate(zip(examples, predictions, strict=True)):
        for index, token in enumerate(tokens):
            logits[row, len(prompt) - 1 + index, token] = 5.0
    return logits


def test_two_of_three_completions_and_five_of_six_tokens() -> None:
    examples: list[Example] = [([9], [1, 1]), ([9, 8], [0, 5]), ([7, 7, 7], [4, 2])]
    found = totals_of(examples, logits=saying(examples, [[1, 2], [0, 5], [4, 2]]))
    assert found.token_accuracy == pytest.approx(5 / 6)
    assert found.sequence_accuracy == pytest.approx(2 / 3)
    assert (found.right_tokens, found.completions) == (5, 3)


def test_a_weight_of_zero_masks_the_prompt() -> None:
    found = totals_of(EXAMPLES, prompt_weight=0)
    assert found.loss == found.completion_loss
    assert found.weight == sum(len(completion) for _, completion in EXAMPLES)


def test_a_weight_of_one_is_a_plain_language_model() -> None:
    found = totals_of(EXAMPLES, prompt_weight=1)
    batch = batch_of(EXAMPLES)
    logits = logits_for(batch)
    plain = []
    for row, (prompt, completion) in enumerate(EXAMPLES):
        tokens = torch.tensor(prompt + completion)
        kept = logits[row, : len(tokens) - 1]
        plain.append(torch.nn.functional.cross_entropy(kept, tokens[1:], reduction="none"))
    assert found.loss == pytest.approx(float(torch.cat(plain).mean()), rel=1e-6)


def test_packed_and_padded_examples_have_the_same_sums() -> None:
    for weight in (0.0, 0.1, 1.0):
        padded, packed = totals_of(EXAMPLES, weight), totals_of(EXAMPLES, weight, packed=True)
        assert dataclasses.astuple(packed) == pytest.approx(dataclasses.astuple(padded), rel=1e-9)


def test_the_first_token_has_no_weight_even_without_a_prompt() -> None:
    found = totals_of([([], [5, 6, 2])])
    assert found.completion_tokens == 2
    assert found.completions == 1


def test_the_order_of_rows_changes_nothing() -> None:
    forward, backward = totals_of(EXAMPLES), totals_of(EXAMPLES[::-1])
    assert dataclasses.astuple(forward) == pytest.approx(dataclasses.astuple(backward), rel=1e-12)


def test_the_counted_weight_equals_the_sum() -> None:
    batch = batch_of(EXAMPLES)
    for weight in (0, 0.1, 1):
        found = float(np.where(batch.roles == 2, 1.0, weight).sum())
        assert batch.weight(weight) == pytest.approx(found, rel=1e-12)


def test_twice_the_examples_have_the_same_loss_and_twice_the_sums() -> None:
    once, twice = totals_of(EXAMPLES), totals_of(EXAMPLES * 2)
    assert twice.loss == pytest.approx(once.loss, rel=1e-12)
    assert twice.objective == pytest.approx(2 * once.objective, rel=1e-12)


def test_without_targets_there_is_no_loss_and_no_gradient() -> None:
    batch = assemble(split_of(EXAMPLES), [], packed=False, prompts=True)
    logits = logits_for(batch).requires_grad_()
    none = torch.zeros(0, dtype=torch.float64)
    predicted = of_logits(logits.flatten(0, 1)[batch.input_indices], none.long(), none)
    (predicted[0] * scale(0.0, ranks=2)).backward()  # type: ignore[no-untyped-call]
    found: Any = logits.grad
    assert not found.any()
    totals = Totals(*sums(batch, predicted, 0.1).tolist())
    assert (totals.loss, totals.token_accuracy, totals.sequence_accuracy) == (None, None, None)


def test_with_half_precision_the_loss_is_computed_in_single_precision() -> None:
    half = logits_for(batch_of(EXAMPLES)).to(torch.bfloat16)
    found = totals_of(EXAMPLES, logits=half)
    assert found.loss == pytest.approx(totals_of(EXAMPLES, logits=half.float()).loss, rel=1e-12)
