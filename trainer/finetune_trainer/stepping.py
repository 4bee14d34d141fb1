"""One step's forward and backward, and evaluation: a rank's share of the work, everyone's sums."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune_api.tasks import TrainTask
from finetune_data.dataset import TokenSplit
from finetune_trainer import batches
from finetune_trainer.batches import Costs, Indices, Rows
from finetune_trainer.engine import Engine
from finetune_trainer.loss import Totals, scale, sums, total_weight

if TYPE_CHECKING:
    from torch import Tensor

EVALUATION_STEPS = 8  # one batch of the validation file at steps 1, 9, 17, ...


@dataclass(frozen=True)
class Batch:
    """What a step trains on, over all ranks."""

    examples: int
    tokens: int


class Stepper:
    """Gradients of one optimiser step."""

    def __init__(self, task: TrainTask, engine: Engine, split: TokenSplit, costs: Costs) -> None:
        self._parameters = task.hyperparameters
        self._engine = engine
        self._split = split
        self._lengths = split.lengths
        self._costs = costs

    def accumulate(self, step: int, *, stop: bool) -> tuple[Totals, Batch, bool]:
        """Leaves the gradient of Σ w·nll / Σ w in the engine.

        `stop`: this rank was asked to; returns whether any was, so that all stop together.
        """
        engine, parameters = self._engine, self._parameters
        examples = batches.step_examples(
            len(self._split), parameters.batch_size, parameters.seed, step
        )
        seed_step(parameters.seed, step, engine.place.rank)
        rows = own_rows(self._split, examples, engine, self._costs)
        totals, is_stopping = accumulate(
            engine, rows, parameters.prompt_loss_weight, flag=float(stop)
        )
        tokens = int(self._lengths[examples].sum())
        return totals, Batch(len(examples), tokens), is_stopping > 0


def accumulate(
    engine: Engine, rows: Sequence[Rows], prompt_weight: float, flag: float = 0
) -> tuple[Totals, float]:
    """Forward and backward over this rank's micro-batches; sums over all ranks, `flag`'s too."""
    import torch

    own = sum(total_weight(part.roles, prompt_weight) for part in rows)
    weight = torch.tensor([own], dtype=torch.float64, device=engine.device)
    factor = scale(float(engine.sum(weight).item()), engine.place.ranks)
    found = torch.zeros(8, dtype=torch.float64, device=engine.device)
    found[7] = flag
    for index, part in enumerate(rows):
        tokens, roles = to_device(part, engine)
        objective, values = sums(engine.logits(tokens), tokens, roles, prompt_weight)
        engine.backward(objective * factor, is_last=index == len(rows) - 1)
        found[:7] += values
    *values, flags = engine.sum(found).tolist()
    return Totals(*values), flags


class Evaluation:
    """The validation file: one batch of it every few steps, all of it at an epoch's end."""

    def __init__(
        self,
        task: TrainTask,
        engine: Engine,
        split: TokenSplit,
        costs: Costs,
        is_alive: Callable[[], None],
    ) -> None:
        self._parameters = task.hyperparameters
        self._engine = engine
        self._split = split
        self._costs = costs
        self._is_alive = is_alive  # called after each micro-batch

    def after(self, step: int, *, whole: bool) -> Totals | None:
        """None where this step has no evaluation."""
        if whole:
            return self._evaluate(np.arange(len(self._split)))
        if (step - 1) % EVALUATION_STEPS:
            return None
        turn = (step - 1) // EVALUATION_STEPS
        size = self._parameters.batch_size
        return self._evaluate(batches.validation_examples(len(self._split), size, turn))

    def _evaluate(self, examples: Indices) -> Totals:
        import torch

        engine, weight = self._engine, self._parameters.prompt_loss_weight
        found = torch.zeros(7, dtype=torch.float64, device=engine.device)
        engine.model.eval()
        with torch.no_grad():
            for part in own_rows(self._split, examples, engine, self._costs):
                tokens, roles = to_device(part, engine)
                found += sums(engine.logits(tokens), tokens, roles, weight)[1]
                self._is_alive()
        engine.model.train()
        return Totals(*engine.sum(found).tolist())


def own_rows(
    split: TokenSplit,
    examples: Indices,
    engine: Engine,
    costs: Costs,
) -> list[Rows]:
    """This rank's micro-batches of the examples."""
    lengths = (split.offsets[examples + 1] - split.offsets[examples]).tolist()
    mine = batches.spread(lengths, engine.place.ranks, costs)[engine.place.rank]
    return [batches.assemble(split, [int(examples[i]) for i in part]) for part in mine]


def to_device(rows: Rows, engine: Engine) -> tuple["Tensor", "Tensor"]:
    import torch

    tokens = torch.from_numpy(rows.tokens).to(engine.device, non_blocking=True)
    return tokens, torch.from_numpy(rows.roles).to(engine.device, non_blocking=True)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout's randomness from (seed, step, rank): a resumed run has the same, with no state."""
    import torch

    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
