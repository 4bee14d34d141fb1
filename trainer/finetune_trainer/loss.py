"""The objective Σ w·nll / Σ w over all tokens of a step, on all ranks, and its accuracies.

w is the prompt's weight on a prompt token, 1 on a completion's (its end-of-sequence token is one),
0 on padding and on the first token of an example, which nothing predicts. Every quantity is a pair
of sums, added up over micro-batches and ranks; a ratio is formed once, at the end. A mean of means
is wrong as soon as two ranks or micro-batches differ in their tokens.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune_trainer.batches import Roles

if TYPE_CHECKING:
    from torch import Tensor

PROMPT, COMPLETION = 1, 2


def total_weight(roles: Roles, prompt_weight: float) -> float:
    """Σ w of a micro-batch, exact: counted, not summed."""
    predicted = roles[:, 1:]
    prompts = int(np.count_nonzero(predicted == PROMPT))
    return prompt_weight * prompts + int(np.count_nonzero(predicted == COMPLETION))


@dataclass(frozen=True)
class Totals:
    """Sums over a step or a file; a ratio is None where nothing was counted."""

    objective: float = 0  # Σ w·nll
    weight: float = 0  # Σ w
    completion_nll: float = 0
    completion_tokens: float = 0
    right_tokens: float = 0
    completions: float = 0
    right_completions: float = 0

    @property
    def loss(self) -> float | None:
        return self.objective / self.weight if self.weight else None

    @property
    def completion_loss(self) -> float | None:
        return self.completion_nll / self.completion_tokens if self.completion_tokens else None

    @property
    def token_accuracy(self) -> float | None:
        return self.right_tokens / self.completion_tokens if self.completion_tokens else None

    @property
    def sequence_accuracy(self) -> float | None:
        return self.right_completions / self.completions if self.completions else None


def sums(
    logits: "Tensor", tokens: "Tensor", roles: "Tensor", prompt_weight: float
) -> tuple["Tensor", "Tensor"]:
    """Σ w·nll of a micro-batch, to run backward from, and the seven sums of `Totals` (float64).

    `logits` [rows, width - 1, vocabulary] predict `tokens` [rows, width] from the second on.
    """
    import torch
    from torch.nn import functional

    targets, marks = tokens[:, 1:], roles[:, 1:]
    completion = marks == COMPLETION
    nll = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none"
    ).view_as(targets)
    weights = completion + (marks == PROMPT).to(torch.float64) * prompt_weight
    objective = (weights * nll).sum()
    with torch.no_grad():
        wrong = (logits.argmax(-1) != targets) & completion
        has_completion = completion.any(1)
        values = [
            objective,
            weights.sum(),
            (completion * nll).sum(dtype=torch.float64),
            completion.sum(),
            (completion & ~wrong).sum(),
            has_completion.sum(),
            (has_completion & ~wrong.any(1)).sum(),
        ]
        return objective, torch.stack([value.detach().to(torch.float64) for value in values])


def scale(weight: float, ranks: int) -> float:
    """The factor on Σ w·nll of a micro-batch that makes the gradient that of Σ w·nll / `weight`.

    DeepSpeed averages gradients over the ranks, so each must be `ranks` times too large; it adds
    them up over micro-batches (the engine switches its division off). A step in which nothing
    weighs anything still runs, with a gradient of zero.
    """
    return ranks / weight if weight else 0.0
