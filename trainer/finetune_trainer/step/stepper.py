"""The forward and backward passes of a step, and evaluation, on one rank; sums of all ranks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.tasks import TrainTask
from finetune_data.read.examples import COMPLETION, PROMPT
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer.batching import microbatch, order
from finetune_trainer.batching.microbatch import MicroBatch
from finetune_trainer.batching.order import Costs, Indices
from finetune_trainer.batching.packing import pack_step
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.step.loss import Totals, scale, sums

EVALUATION_STEPS = 8  # a batch of the validation file at steps 1, 9, 17, ...


@dataclass(frozen=True)
class Batch:
    """The examples of a step on all ranks."""

    examples: int
    tokens: int
    wait: float  # seconds that this rank waited for its arrays


class Stepper:
    """Computes the gradients of optimizer steps."""

    def __init__(self, task: TrainTask, engine: Engine, split: TokenSplit, costs: Costs) -> None:
        self._parameters = task.hyperparameters
        self._engine = engine
        self._split = split
        self._lengths = split.lengths
        self._counts = target_counts(split)
        self._costs = costs

    def accumulate(
        self, step: int, flags: Sequence[float] = ()
    ) -> tuple[Totals, Batch, list[float]]:
        """Compute the gradient of Σ w·nll / Σ w, which stays in the engine.

        flags: values of this rank; returns their sums over all ranks.
        """
        engine, parameters = self._engine, self._parameters
        begin = time.perf_counter()
        examples = order.step_examples(
            len(self._split), parameters.batch_size, parameters.seed, step
        )
        seed_step(parameters.seed, step, engine.coordinates.rank)
        own = own_batches(self._split, examples, engine, self._costs, parameters.prompt_loss_weight)
        prompts, completions = self._counts[examples].sum(0)
        weight = microbatch.total_weight(
            int(prompts), int(completions), parameters.prompt_loss_weight
        )
        wait = time.perf_counter() - begin
        totals, summed = accumulate(engine, own, parameters.prompt_loss_weight, weight, flags)
        tokens = int(self._lengths[examples].sum())
        return totals, Batch(len(examples), tokens, wait), summed


def accumulate(
    engine: Engine,
    own: Sequence[MicroBatch],
    prompt_weight: float,
    weight: float,
    flags: Sequence[float] = (),
) -> tuple[Totals, list[float]]:
    """Run forward and backward on this rank's micro-batches; return the sums over all ranks.

    weight: Σ w of the micro-batches of all ranks.
    """
    import torch

    factor = scale(weight, engine.coordinates.ranks)
    found = torch.zeros(7 + len(flags), dtype=torch.float64, device=engine.device)
    for index, batch in enumerate(own):
        predicted = engine.predict(batch, prompt_weight)
        engine.backward(predicted[0] * factor, is_last=index == len(own) - 1)
        found[:7] += sums(batch, predicted, prompt_weight)
    if flags:
        found[7:] = torch.tensor(flags, dtype=torch.float64)
    values = engine.sum(found).tolist()
    return Totals(*values[:7]), values[7:]


class Evaluation:
    """Evaluates a batch of the validation file every few steps, and all of it after an epoch."""

    def __init__(
        self,
        task: TrainTask,
        engine: Engine,
        split: TokenSplit,
        costs: Costs,
        heartbeat: Callable[[], None],
    ) -> None:
        self._parameters = task.hyperparameters
        self._engine = engine
        self._split = split
        self._costs = costs
        self._heartbeat = heartbeat  # called after each micro-batch

    def after(self, step: int, *, whole: bool) -> Totals | None:
        """Evaluate after a step; None if this step has no evaluation."""
        if whole:
            return self.whole()
        if (step - 1) % EVALUATION_STEPS:
            return None
        turn = (step - 1) // EVALUATION_STEPS
        size = self._parameters.batch_size
        return self._evaluate(order.validation_examples(len(self._split), size, turn))

    def whole(self) -> Totals:
        """Evaluate the whole validation file."""
        return self._evaluate(np.arange(len(self._split)))

    def _evaluate(self, examples: Indices) -> Totals:
        import torch

        engine, weight = self._engine, self._parameters.prompt_loss_weight
        found = torch.zeros(7, dtype=torch.float64, device=engine.device)
        engine.model.eval()
        with torch.no_grad():
            for batch in own_batches(self._split, examples, engine, self._costs, weight):
                found += sums(batch, engine.predict(batch, weight), weight)
                self._heartbeat()
        engine.model.train()
        return Totals(*engine.sum(found).tolist())


def own_batches(
    split: TokenSplit, examples: Indices, engine: Engine, costs: Costs, prompt_weight: float
) -> list[MicroBatch]:
    """This rank's micro-batches of the examples."""
    lengths = split.offsets[examples + 1] - split.offsets[examples]
    return [
        microbatch.assemble(
            split,
            examples[part].tolist(),
            packed=engine.compute_path.is_packed,
            prompts=prompt_weight > 0,
        )
        for part in shares(lengths.tolist(), engine, costs)[engine.coordinates.rank]
    ]


def shares(lengths: Sequence[int], engine: Engine, costs: Costs) -> list[order.MicroBatches]:
    """Each rank's micro-batches of examples with these lengths, as indices into `lengths`."""
    if engine.compute_path.is_packed:
        return pack_step(lengths, costs.slots, engine.coordinates.ranks)
    return order.spread(lengths, engine.coordinates.ranks, costs)


def target_counts(split: TokenSplit) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    """[examples, 2]: the numbers of predicted prompt and completion tokens of each example."""
    begins = split.offsets[:-1]
    counts = np.zeros((len(begins), 2), np.int64)
    for column, role in enumerate((PROMPT, COMPLETION)):
        whole = np.add.reduceat(split.roles == role, begins, dtype=np.int64)
        counts[:, column] = whole - (split.roles[begins] == role)
    return counts


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed dropout from (seed, step, rank), so that a resumed run repeats it without any state."""
    import torch

    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.default_generator.manual_seed(int(state[0]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(int(state[0]))
