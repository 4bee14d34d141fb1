"""The objective Σ w·nll / Σ w over all tokens of a step, on all ranks, and its accuracies.

w is the prompt loss weight for a prompt token, 1 for a completion token (including the
end-of-sequence token), and 0 for padding and for the first token of an example, which nothing
predicts. Every quantity is a pair of sums over micro-batches and ranks, and its ratio is computed
once, at the end. A mean of means is wrong as soon as two ranks or micro-batches have different
numbers of tokens.
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
    """Sums over a step or a file. A ratio is None if its denominator is zero."""

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
    """The seven sums of `Totals` for a micro-batch, [7] float64 on the device."""
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
    """The factor for the Σ w·nll of a micro-batch, so that the step's loss is Σ w·nll / `weight`.

    DeepSpeed averages gradients over the ranks, so each one must be `ranks` times larger; it sums
    them over micro-batches (the engine disables its division). A step without any weight has a
    gradient of zero.
    """
    return ranks / weight if weight else 0.0
