"""Every row as 28 bytes: what exact copies, conflicts and overlap need, whatever its length."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_data.lint.columns import Columns

# 96 bits of each text: two different ones of a million look alike once in 10^17 files.
ROW = np.dtype(
    [
        ("prompt", "<u8"),
        ("prompt2", "<u4"),
        ("completion", "<u8"),
        ("completion2", "<u4"),
        ("line", "<u4"),
    ]
)
Ordinals = npt.NDArray[np.int64]
LAST_LINE = 2**32 - 1
MIX = np.uint64(0x9E3779B97F4A7C15)


def digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=12).digest()


class Copies(NamedTuple):
    """Ordinals of later copies, and of the row that each of them repeats."""

    later: Ordinals
    first: Ordinals


class Fingerprints:
    """The rows of one or several files, in reading order."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._files: list[tuple[int, str]] = []  # first ordinal, the file's name

    def begin(self, name: str) -> None:
        """The rows that come are this file's."""
        self._files.append((len(self), name))

    def look(self, columns: Columns) -> None:
        parts: list[bytes] = []
        for example, prompt, completion in zip(
            columns.examples, columns.prompts, columns.completions, strict=True
        ):
            line = min(example.line, LAST_LINE).to_bytes(4, "little")
            parts += (digest(prompt), digest(completion), line)
        self._bytes += b"".join(parts)

    def __len__(self) -> int:
        return len(self._bytes) // ROW.itemsize

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """A view: no row may be added while it lives."""
        return np.frombuffer(self._bytes, ROW)

    def place(self, ordinal: int) -> str:
        """`line 17`; with several files `train.csv, line 17`."""
        line = f"line {int(self.rows['line'][ordinal])}"
        if len(self._files) < 2:
            return line
        name = next(name for first, name in reversed(self._files) if first <= ordinal)
        return f"{name}, {line}"

    def keys(self) -> npt.NDArray[np.uint64]:
        """64 bits for each (prompt, completion)."""
        rows = self.rows
        keys: npt.NDArray[np.uint64] = rows["prompt"] * MIX
        keys += rows["completion"]
        return keys

    def copies(self) -> Copies:
        """Rows that an earlier row is equal to."""
        groups, members = _equal_runs(self.keys())
        if not len(members):
            return Copies(members, members)
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        first = np.repeat(members[starts], np.diff(np.append(starts, len(members))))
        rows = self.rows
        later = (members != first) & _are_equal(rows[members], rows[first])
        sort = np.argsort(members[later])
        return Copies(members[later][sort], first[later][sort])

    def conflicts(self) -> tuple[int, Ordinals]:
        """Prompts with more than one completion: how many, and the rows that disagree.

        Empty prompts are left out: they have no one answer.
        """
        rows = self.rows
        _, members = _equal_runs(rows["prompt"])
        empty = np.frombuffer(digest("")[:8], "<u8")[0]
        members = members[rows["prompt"][members] != empty]
        prompts, completions = rows["prompt"][members], rows["completion"][members]
        order = np.lexsort((completions, prompts))
        members, prompts, completions = members[order], prompts[order], completions[order]
        differs = (prompts[1:] == prompts[:-1]) & (completions[1:] != completions[:-1])
        return len(np.unique(prompts[1:][differs])), np.sort(members[1:][differs])

    def distinct_completions(self) -> int:
        ordered = self.rows["completion"].copy()
        ordered.sort()
        return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + bool(len(ordered))

    def class_counts(self) -> npt.NDArray[np.int64]:
        """How many rows each distinct completion has, the most frequent first."""
        counts: npt.NDArray[np.int64] = np.unique(self.rows["completion"], return_counts=True)[1]
        return np.sort(counts)[::-1]

    def shared_with(self, other: Fingerprints) -> Ordinals:
        """Rows of ours that `other` has too."""
        return np.flatnonzero(np.isin(self.keys(), other.keys()))

    def prompts_shared_with(self, other: Fingerprints) -> Ordinals:
        """Rows of ours whose prompt `other` has too."""
        return np.flatnonzero(np.isin(self.rows["prompt"], other.rows["prompt"]))


def _equal_runs(keys: npt.NDArray[np.uint64]) -> tuple[Ordinals, Ordinals]:
    """Rows whose key another row has too: the number of each one's group, and the row."""
    ordered = keys.copy()
    ordered.sort()
    if not np.any(ordered[1:] == ordered[:-1]):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.argsort(keys, kind="stable")
    same = np.empty(len(keys) + 1, bool)  # as the row before it
    same[0] = same[-1] = False
    ordered = keys[order]
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    del ordered
    chosen = np.flatnonzero(same[:-1] | same[1:])
    groups = np.cumsum(~same[:-1][chosen])
    return groups, order[chosen]


def _are_equal(one: npt.NDArray[np.void], other: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    equal = np.ones(len(one), bool)
    for name in ("prompt", "prompt2", "completion", "completion2"):
        equal &= one[name] == other[name]
    return equal
