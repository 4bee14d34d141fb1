"""The objective Σ w·nll / Σ w over all tokens of a step, on all ranks, and its accuracies.

w is the prompt's weight on a prompt token, 1 on a completion's (its end-of-sequence token is one),
0 on padding and on the first token of an example, which nothing predicts. Every quantity is a pair
of sums, added up over micro-batches and ranks; a ratio is formed once, at the end. A mean of means
is wrong as soon as two ranks or micro-batches differ in their tokens.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_data.read.examples import COMPLETION
from finetune_trainer.batching.microbatch import MicroBatch

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_trainer.engine.head import Predicted


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


def sums(batch: MicroBatch, predicted: "Predicted", prompt_weight: float) -> "Tensor":
    """The seven sums of `Totals` (float64) of a micro-batch, on the device."""
    import torch

    objective, nll, right = (part.detach() for part in predicted)
    device = nll.device
    is_completion = torch.from_numpy(batch.roles == COMPLETION).to(device)
    owners = torch.from_numpy(batch.owners).to(device)
    is_right = is_completion & right
    missed = torch.zeros(batch.examples, dtype=torch.float64, device=device)
    missed.index_add_(0, owners, (is_completion & ~right).to(torch.float64))
    right_completions = batch.completions - (missed > 0).sum()
    found = torch.zeros(7, dtype=torch.float64, device=device)
    found[0] = objective
    found[1] = batch.weight(prompt_weight)
    found[2] = (is_completion * nll).sum(dtype=torch.float64)
    found[3] = batch.completion_tokens
    found[4] = is_right.sum()
    found[5] = batch.completions
    found[6] = right_completions
    return found


def scale(weight: float, ranks: int) -> float:
    """The factor on Σ w·nll of a micro-batch that makes the gradient that of Σ w·nll / `weight`.

    DeepSpeed averages gradients over the ranks, so each must be `ranks` times too large; it adds
    them up over micro-batches (the engine switches its division off). A step in which nothing
    weighs anything still runs, with a gradient of zero.
    """
    return ranks / weight if weight else 0.0
