"""Micro-batches: examples as arrays, padded in rows of their own or packed into one row. Pure.

The last token of an example is not an input, and the first one is not a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune_data.read.examples import COMPLETION, PROMPT
from finetune_data.tokenize.dataset import TokenSplit

Integers = npt.NDArray[np.int64]
Roles = npt.NDArray[np.uint8]
Example = tuple[npt.NDArray[np.integer], Roles]  # all tokens, and the role of each


@dataclass(frozen=True)
class MicroBatch:
    """The inputs of the model, and the targets with a weight."""

    inputs: Integers  # [rows, width]; padded with 0
    positions: Integers  # [rows, width]; start at 0 in each example
    bounds: tuple[int, ...] | None  # of the examples in the single row; None: one example per row
    input_indices: Integers  # [targets]: index of the predicting token in the flat inputs
    targets: Integers  # [targets]
    roles: Roles  # [targets]
    owners: Integers  # [targets]: index of the example
    examples: int

    @property
    def completion_tokens(self) -> int:
        return int(np.count_nonzero(self.roles == COMPLETION))

    @property
    def completions(self) -> int:
        """The number of examples with completion tokens."""
        return len(np.unique(self.owners[self.roles == COMPLETION]))

    def weight(self, prompt_weight: float) -> float:
        """Σ w, exact because it is computed from counts."""
        prompts = int(np.count_nonzero(self.roles == PROMPT))
        return total_weight(prompts, self.completion_tokens, prompt_weight)


def total_weight(prompts: int, completions: int, prompt_weight: float) -> float:
    """Σ w for these numbers of predicted prompt and completion tokens."""
    return prompt_weight * prompts + completions


def assemble(
    split: TokenSplit, members: Sequence[int], *, packed: bool, prompts: bool
) -> MicroBatch:
    """A micro-batch of the examples `members` of the split; see `arrange`."""
    return arrange([split.example(int(index)) for index in members], packed=packed, prompts=prompts)


def arrange(examples: Sequence[Example], *, packed: bool, prompts: bool) -> MicroBatch:
    """A micro-batch of the examples in this order. Without any target, it has one padding row.

    prompts: whether prompt tokens are targets; without prompt loss weight they need not be.
    """
    sizes = [max(0, len(tokens) - 1) for tokens, _ in examples]
    width = max([1, sum(sizes) if packed else max([0, *sizes])])
    rows = 1 if packed else max(1, len(examples))
    inputs = np.zeros((rows, width), np.int64)
    positions = np.zeros((rows, width), np.int64)
    if not packed:
        positions[:] = np.arange(width)
    begins, begin = [], 0
    for index, ((tokens, _), size) in enumerate(zip(examples, sizes, strict=True)):
        row, start = (0, begin) if packed else (index, 0)
        inputs[row, start : start + size] = tokens[:size]
        if packed:
            positions[row, start : start + size] = np.arange(size)
        begins.append(row * width + start)
        begin += size
    roles = np.concatenate([np.zeros(0, np.uint8), *(marks[1:] for _, marks in examples)])
    targets = np.concatenate([np.zeros(0, np.int64), *(tokens[1:] for tokens, _ in examples)])
    kept = np.flatnonzero((roles == COMPLETION) | (roles == PROMPT if prompts else False))
    owners = np.repeat(np.arange(len(examples)), sizes)
    ends = np.cumsum([0, *sizes])[:-1]  # of the examples in the concatenated targets
    shifts = np.array(begins, np.int64) - ends[: len(begins)]
    bounds = tuple(np.unique([0, *np.cumsum([size for size in sizes if size]), width]).tolist())
    return MicroBatch(
        inputs=inputs,
        positions=positions,
        bounds=bounds if packed else None,
        input_indices=kept + shifts[owners[kept]] if len(kept) else kept,
        targets=targets[kept],
        roles=roles[kept],
        owners=owners[kept],
        examples=len(examples),
    )
