"""The split into training and validation: stratified by class, by whole prompts, repeatable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune_data.lint.fingerprints import Fingerprints, digest
from finetune_data.lint.fixes import Mask

AT_MOST = 1000  # validation examples: more hardly measure better, and cost training data


@dataclass(frozen=True)
class Split:
    """`is_validation` has a value for each example that was read."""

    is_validation: Mask
    single_prompt_classes: int = 0  # their rows have one prompt, so they cannot be on both sides


def plan_split(
    rows: Fingerprints, kept: Mask, *, share: float, seed: int, is_classification: bool
) -> Split:
    """Send about `share` of the kept rows, at most 1,000, to validation.

    All rows of one prompt stay on one side, because validation would measure memorization
    otherwise; rows without a prompt are distinguished by their completions. In a classification,
    every class with at least two prompts is on both sides, in about its share. The order within a
    class depends only on the seed and the texts: no other row and no platform changes it.
    """
    table = rows.rows
    prompts = table["prompt"].copy()
    empty = int.from_bytes(digest(""), "little")
    prompts = np.where(prompts == empty, table["completion"], prompts)
    keys, group = np.unique(prompts, return_inverse=True)
    sizes = np.bincount(group[kept], minlength=len(keys))
    wanted = min(AT_MOST, round(share * int(kept.sum())))
    if is_classification:
        classes = np.unique(table["completion"], return_inverse=True)[1]
        # a prompt with several completions counts for the class of its first row
        of_group = np.zeros(len(keys), np.int64)
        of_group[group[::-1]] = classes[::-1]
    else:
        of_group = np.zeros(len(keys), np.int64)
    order = _mixed(keys, seed)
    chosen = np.zeros(len(keys), bool)
    single_prompt = 0
    total = max(1, int(sizes.sum()))
    for one in np.unique(of_group[sizes > 0]):
        members = np.flatnonzero((of_group == one) & (sizes > 0))
        if len(members) < 2:
            single_prompt += is_classification
            if is_classification or not wanted:
                continue
        members = members[np.argsort(order[members], kind="stable")]
        target = max(1.0, wanted * sizes[members].sum() / total)
        taken = np.cumsum(sizes[members])
        count = int(np.searchsorted(taken, target, side="left")) + 1
        chosen[members[: min(count, max(1, len(members) - 1))]] = True
    return Split(chosen[group] & kept, single_prompt)


def _mixed(keys: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """A pseudorandom number for each key (the finalizer of SplitMix64)."""
    mixed = keys + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
