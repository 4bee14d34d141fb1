import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from finetune_trainer.batches import assemble
from finetune_trainer.loss import Totals, scale, sums, total_weight
from tests.trainer.support import VOCABULARY, Example, random_examples, split_of

EXAMPLES = random_examples(6, seed=5)


def totals_of(
    examples: list[Example], prompt_weight: float = 0.1, logits: torch.Tensor | None = None
) -> Totals:
    rows = assemble(split_of(examples), list(range(len(examples))))
    tokens, roles = torch.from_numpy(rows.tokens), torch.from_numpy(rows.roles)
    if logits is None:
        logits = logits_for(tokens)
    return Totals(*sums(logits, tokens, roles, prompt_weight)[1].tolist())


def logits_for(tokens: torch.Tensor) -> torch.Tensor:
    """Logits that depend on each token and its position alone, as causal ones may."""
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(1))
    places = torch.arange(tokens.shape[1] - 1).view(1, -1, 1)
    return table[tokens[:, :-1]] + 0.01 * places


def saying(examples: list[Example], predictions: list[list[int]]) -> torch.Tensor:
    """Logits whose argmax over each completion is `predictions`."""
    rows = assemble(split_of(examples), list(range(len(examples))))
    logits = torch.zeros(len(examples), rows.tokens.shape[1] - 1, VOCABULARY)
    for row, ((prompt, _), tokens) in enumerate(zip(examples, predictions, strict=True)):
        for place, token in enumerate(tokens):
            logits[row, len(prompt) - 1 + place, token] = 5.0
    return logits


def test_two_of_three_completions_and_five_of_six_tokens() -> None:
    examples: list[Example] = [([9], [1, 1]), ([9, 8], [0, 5]), ([7, 7, 7], [4, 2])]
    found = totals_of(examples, logits=saying(examples, [[1, 2], [0, 5], [4, 2]]))
    assert found.token_accuracy == pytest.approx(5 / 6)
    assert found.sequence_accuracy == pytest.approx(2 / 3)
    assert (found.right_tokens, found.completions) == (5, 3)


def test_weight_zero_is_masking_the_prompt() -> None:
    found = totals_of(EXAMPLES, prompt_weight=0)
    assert found.loss == found.completion_loss
    assert found.weight == sum(len(completion) for _, completion in EXAMPLES)


def test_weight_one_is_a_plain_language_model() -> None:
    found = totals_of(EXAMPLES, prompt_weight=1)
    rows = assemble(split_of(EXAMPLES), list(range(6)))
    tokens = torch.from_numpy(rows.tokens)
    targets = torch.where(torch.from_numpy(rows.roles)[:, 1:] > 0, tokens[:, 1:], -100)
    plain = torch.nn.functional.cross_entropy(logits_for(tokens).flatten(0, 1), targets.flatten())
    assert found.loss == pytest.approx(float(plain), rel=1e-6)


def test_the_first_token_weighs_nothing_even_without_a_prompt() -> None:
    found = totals_of([([], [5, 6, 2])])
    assert found.completion_tokens == 2
    assert found.completions == 1


def test_rows_that_only_fill_up_change_nothing() -> None:
    rows = assemble(split_of(EXAMPLES), list(range(6)))
    tokens = np.pad(rows.tokens, ((0, 3), (0, 7)))
    roles = np.pad(rows.roles, ((0, 3), (0, 7)))
    padded = torch.from_numpy(tokens)
    found = sums(logits_for(padded), padded, torch.from_numpy(roles), 0.1)[1].tolist()
    assert found == pytest.approx(dataclasses.astuple(totals_of(EXAMPLES)), rel=1e-12)


def test_the_order_of_rows_changes_nothing() -> None:
    forward, backward = totals_of(EXAMPLES), totals_of(EXAMPLES[::-1])
    assert dataclasses.astuple(forward) == pytest.approx(dataclasses.astuple(backward), rel=1e-12)


def test_the_weight_is_counted_as_the_sum_has_it() -> None:
    rows = assemble(split_of(EXAMPLES), list(range(6)))
    for weight in (0, 0.1, 1):
        found = totals_of(EXAMPLES, weight).weight
        assert total_weight(rows.roles, weight) == pytest.approx(found, rel=1e-12)


def test_twice_the_examples_have_the_same_loss_and_twice_the_sums() -> None:
    once, twice = totals_of(EXAMPLES), totals_of(EXAMPLES * 2)
    assert twice.loss == pytest.approx(once.loss, rel=1e-12)
    assert twice.objective == pytest.approx(2 * once.objective, rel=1e-12)


def test_nothing_to_learn_has_no_loss_and_no_gradient() -> None:
    rows = assemble(split_of(EXAMPLES), [])
    tokens = torch.from_numpy(rows.tokens)
    logits = logits_for(tokens).requires_grad_()
    objective, values = sums(logits, tokens, torch.from_numpy(rows.roles), 0.1)
    (objective * scale(0.0, ranks=2)).backward()  # type: ignore[no-untyped-call]
    found: Any = logits.grad
    assert not found.any()
    totals = Totals(*values.tolist())
    assert (totals.loss, totals.token_accuracy, totals.sequence_accuracy) == (None, None, None)


def test_in_half_precision_the_loss_is_still_computed_in_single() -> None:
    rows = assemble(split_of(EXAMPLES), list(range(6)))
    tokens = torch.from_numpy(rows.tokens)
    half = logits_for(tokens).to(torch.bfloat16)
    found = totals_of(EXAMPLES, logits=half)
    assert found.loss == pytest.approx(totals_of(EXAMPLES, logits=half.float()).loss, rel=1e-12)
