"""Best-fit packing of examples into rows of the model's context. Pure and deterministic."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Lengths = Sequence[int] | npt.NDArray[np.integer]
Bin = list[int]  # indices of examples


def pack(lengths: Lengths, capacity: int) -> list[Bin]:
    """Best-fit decreasing: each example, the longest first, goes into the fullest bin that fits.

    Every example is in exactly one bin; one longer than `capacity` has a bin of its own. One
    integer has a bit for each free length of a bin, so that a search is a shift.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.lexsort((np.arange(len(sizes)), -sizes))
    bins: list[Bin] = []
    open_bins: dict[int, list[int]] = {}  # by their free length
    free = 0  # bit n: a bin with n free
    for index, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = free >> size
        if size > capacity or not fitting:
            bins.append([index])
            chosen, left = len(bins) - 1, capacity - size
        else:
            room = size + (fitting & -fitting).bit_length() - 1
            chosen = open_bins[room].pop()
            if not open_bins[room]:
                free &= ~(1 << room)
            bins[chosen].append(index)
            left = room - size
        if left > 0:
            open_bins.setdefault(left, []).append(chosen)
            free |= 1 << left
    return bins


def pack_step(lengths: Lengths, capacity: int, ranks: int) -> list[list[Bin]]:
    """The bins of each rank, the same number for all; [] is a row without weight.

    It uses as many bins as best fit needs, and makes them as even as possible, since all ranks wait
    for the slowest. The packing derives only from the step's examples, so it is reproducible.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    tight = pack(sizes, capacity)
    each = -(-max(1, len(tight)) // ranks)
    bins = _even(sizes, ranks * each)
    loads = [int(sizes[members].sum()) for members in bins]
    if max(loads) > max([capacity, *sizes.tolist()]):  # even bins do not fit
        bins = tight
        loads = [int(sizes[members].sum()) for members in bins]
    shares: list[list[Bin]] = [[] for _ in range(ranks)]
    done = [0] * ranks
    for index in sorted(range(len(bins)), key=lambda i: (-loads[i], i)):
        rank = min((r for r in range(ranks) if len(shares[r]) < each), key=lambda r: (done[r], r))
        shares[rank].append(bins[index])
        done[rank] += loads[index]
    return [share + [[] for _ in range(each - len(share))] for share in shares]


def _even(sizes: npt.NDArray[np.int64], count: int) -> list[Bin]:
    """The longest first, into the bin with the lowest load (Graham's LPT rule)."""
    bins: list[Bin] = [[] for _ in range(count)]
    heap = [(0, index) for index in range(count)]
    for example in np.lexsort((np.arange(len(sizes)), -sizes)).tolist():
        load, index = heap[0]
        bins[index].append(example)
        heapq.heapreplace(heap, (load + int(sizes[example]), index))
    return bins
