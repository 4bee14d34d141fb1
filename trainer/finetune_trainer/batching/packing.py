"""Best-fit packing: which examples share a row of the model's context. Pure, and deterministic."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Lengths = Sequence[int] | npt.NDArray[np.integer]
Bin = list[int]  # positions of examples


def pack(lengths: Lengths, capacity: int) -> list[Bin]:
    """Best-fit decreasing: each example, the longest first, into the fullest bin that takes it.

    Every example is in exactly one bin; one longer than `capacity` has a bin of its own. Which
    bins have room is one integer with a bit for each free length, so a search is a shift.
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
    """The bins of each rank, as many for each; [] is a row that weighs nothing.

    No more bins than best fit needs, made as even as they can be: all ranks wait for the one with
    the most. A step's examples follow from (seed, epoch, step) alone, so what is packed with what
    does, too.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    tight = pack(sizes, capacity)
    each = -(-max(1, len(tight)) // ranks)
    bins = _even(sizes, ranks * each)
    loads = [int(sizes[members].sum()) for members in bins]
    if max(loads) > max([capacity, *sizes.tolist()]):  # too little room for evenness
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
    """The longest first, always into the bin with the least (Graham's LPT rule)."""
    bins: list[Bin] = [[] for _ in range(count)]
    heap = [(0, index) for index in range(count)]
    for place in np.lexsort((np.arange(len(sizes)), -sizes)).tolist():
        load, index = heap[0]
        bins[index].append(place)
        heapq.heapreplace(heap, (load + int(sizes[place]), index))
    return bins
