"""The examples of a step, and their distribution over ranks and micro-batches. Pure.

The examples of a step derive only from (seed, epoch, step): not from the number of ranks, and
without replaying earlier steps. Their distribution affects only the duration of the step. Every
rank gets the same number of micro-batches (collectives wait for all ranks), examples of similar
length share a micro-batch (padding costs as much as tokens), and the busiest rank has as little
load as possible.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]
MicroBatches = list[list[int]]  # of one rank: indices into the step's examples; [] is a padding row


@dataclass(frozen=True)
class Costs:
    """The capacity of a micro-batch, and its cost besides its tokens."""

    slots: int  # tokens and padding per micro-batch; a longer example has one of its own
    overhead: int  # fixed cost of a micro-batch, in tokens


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> Indices:
    """A permutation of the examples, from raw bits, which NumPy keeps stable across versions."""
    keys = np.random.Philox(key=[seed, epoch]).random_raw(examples)
    return np.argsort(keys, kind="stable")


def step_examples(examples: int, batch_size: int, seed: int, step: int) -> Indices:
    """The examples of step `step` (from 1); the last step of an epoch takes the remaining ones."""
    epoch, index = divmod(step - 1, -(-examples // batch_size))
    return epoch_order(examples, seed, epoch)[index * batch_size : (index + 1) * batch_size]


def validation_examples(examples: int, batch_size: int, turn: int) -> Indices:
    """The batch of the validation file for the evaluation number `turn`, cyclically."""
    index = turn % -(-examples // batch_size)
    return np.arange(index * batch_size, min(examples, (index + 1) * batch_size))


def spread(lengths: Sequence[int], ranks: int, costs: Costs) -> list[MicroBatches]:
    """Each rank's micro-batches: parts of the examples sorted by length, the longest first.

    More micro-batches need less padding and cost more overhead: the fastest number is chosen.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    widths = [max(2, lengths[i]) for i in order]
    best: list[list[range]] = []
    best_time = -1
    worse = 0
    room = ranks * max(costs.slots, widths[0])
    each = max(1, sum(widths) // room)
    while True:
        runs = _runs(widths, ranks * each, costs.slots)
        if runs is not None:
            shares = _shares(runs, widths, ranks, each)
            time = max(_slots(share, widths) for share in shares) + each * costs.overhead
            if best_time < 0 or time < best_time:
                best, best_time, worse = shares, time, 0
            else:
                worse += 1
            if worse == 4 or each * costs.overhead >= best_time or ranks * each >= len(lengths):
                break
        each = max(each + 1, each * 6 // 5)
    each = max(len(share) for share in best)
    return [
        [[order[i] for i in run] for run in share] + [[]] * (each - len(share)) for share in best
    ]


def _runs(widths: list[int], at_most: int, slots: int) -> list[range] | None:
    """Cut the descending widths into runs so that the largest run is as small as possible."""
    low, high = widths[0], min(max(slots, widths[0]), widths[0] * len(widths))
    if (found := _cut(widths, high, at_most)) is None:
        return None
    while low < high:
        middle = (low + high) // 2
        if (runs := _cut(widths, middle, at_most)) is None:
            low = middle + 1
        else:
            high, found = middle, runs
    return found


def _cut(widths: list[int], slots: int, at_most: int) -> list[range] | None:
    runs: list[range] = []
    start = 0
    while start < len(widths):
        if len(runs) == at_most:
            return None
        stop = min(len(widths), start + max(1, slots // widths[start]))
        runs.append(range(start, stop))
        start = stop
    return runs


def _shares(runs: list[range], widths: list[int], ranks: int, each: int) -> list[list[range]]:
    """The largest run first, to the rank with the least load that has room for one more."""
    shares: list[list[range]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for run in sorted(runs, key=lambda run: (-len(run) * widths[run[0]], run[0])):
        rank = min((r for r in range(ranks) if len(shares[r]) < each), key=lambda r: (load[r], r))
        shares[rank].append(run)
        load[rank] += len(run) * widths[run[0]]
    return shares


def _slots(share: list[range], widths: list[int]) -> int:
    return sum(len(run) * widths[run[0]] for run in share)
