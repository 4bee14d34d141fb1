"""Every row as 20 bytes, whatever its length: enough to find copies, conflicts, and overlap."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_data.lint.columns import Columns

# 64 bits of each text. A copy has both in common. Of a million different prompts, two have the same
# 64 bits in one of 37 million files.
ROW = np.dtype([("prompt", "<u8"), ("completion", "<u8"), ("line", "<u4")])
GROWTH = 50_000  # rows at a time: an array that doubles would reserve too much memory
Ordinals = npt.NDArray[np.int64]
RowKeys = npt.NDArray[np.uint64]
LAST_LINE = 2**32 - 1
MIX = np.uint64(0x9E3779B97F4A7C15)


def digest(text: str) -> bytes:
    """64 bits of a text."""
    return blake2b(text.encode(), digest_size=8).digest()


class Copies(NamedTuple):
    """The ordinals of later copies, and of the row that each of them repeats."""

    later: Ordinals
    first: Ordinals


class Fingerprints:
    """The rows of one or several files, in reading order."""

    def __init__(self) -> None:
        self._rows = np.empty(0, ROW)
        self._count = 0
        self._files: list[tuple[int, str]] = []  # first ordinal, the file's name

    def begin(self, name: str) -> None:
        """The rows that follow belong to this file."""
        self._files.append((len(self), name))

    def observe(self, columns: Columns) -> None:
        parts: list[bytes] = []
        for example, prompt, completion in zip(
            columns.examples, columns.prompts, columns.completions, strict=True
        ):
            line = min(example.line, LAST_LINE).to_bytes(4, "little")
            parts += (digest(prompt), digest(completion), line)
        end = self._count + len(columns)
        if end > len(self._rows):
            # numpy refuses this while a view exists; between two batches there is none
            self._rows.resize(max(end, len(self._rows) + GROWTH), refcheck=False)
        self._rows[self._count : end] = np.frombuffer(b"".join(parts), ROW)
        self._count = end

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """A view. No row can be added while it exists."""
        return self._rows[: self._count]

    def place(self, ordinal: int) -> str:
        """`line 17`; with several files `train.csv, line 17`."""
        line = f"line {int(self.rows['line'][ordinal])}"
        if len(self._files) < 2:
            return line
        name = next(name for first, name in reversed(self._files) if first <= ordinal)
        return f"{name}, {line}"

    def first_place(self, completion: str) -> str:
        """The place of the first row with this completion, which must exist."""
        wanted = np.frombuffer(digest(completion), "<u8")[0]
        return self.place(int(np.argmax(self.rows["completion"] == wanted)))

    def keys(self) -> RowKeys:
        """64 bits for each (prompt, completion)."""
        rows = self.rows
        keys: RowKeys = rows["prompt"] * MIX
        keys += rows["completion"]
        return keys

    def copies(self) -> Copies:
        """The rows that equal an earlier row."""
        groups, members = _equal_runs(self.keys)
        if not len(members):
            return Copies(members, members)
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        first = np.repeat(members[starts], np.diff(np.append(starts, len(members))))
        rows = self.rows
        later = (members != first) & _are_equal(rows[members], rows[first])
        sort = np.argsort(members[later])
        return Copies(members[later][sort], first[later][sort])

    def conflicts(self) -> tuple[int, Ordinals]:
        """The number of prompts with more than one completion, and the rows that contradict.

        Empty prompts do not count: they have many right answers.
        """
        rows = self.rows
        _, members = _equal_runs(rows["prompt"].copy)
        empty = np.frombuffer(digest(""), "<u8")[0]
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
        """The number of rows of each distinct completion, the most frequent first."""
        counts: npt.NDArray[np.int64] = np.unique(self.rows["completion"], return_counts=True)[1]
        return np.sort(counts)[::-1]

    def shared_with(self, other: Fingerprints) -> Ordinals:
        """The rows that `other` has, too."""
        return np.flatnonzero(np.isin(self.keys(), other.keys()))

    def prompts_shared_with(self, other: Fingerprints) -> Ordinals:
        """The rows whose prompt `other` has, too."""
        return np.flatnonzero(np.isin(self.rows["prompt"], other.rows["prompt"]))


def _equal_runs(make: Callable[[], RowKeys]) -> tuple[Ordinals, Ordinals]:
    """The rows that share their key with another row: the number of each row's group, and the row.

    make: returns new keys. They are sorted in place first, because most files have no equal keys.
    """
    keys = make()
    keys.sort()
    if not np.any(keys[1:] == keys[:-1]):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    keys = make()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = np.empty(len(keys) + 1, bool)  # as the row before it
    same[0] = same[-1] = False
    np.equal(keys[1:], keys[:-1], out=same[1:-1])
    chosen = np.flatnonzero(same[:-1] | same[1:])
    groups = np.cumsum(~same[:-1][chosen])
    return groups, order[chosen]


def _are_equal(one: npt.NDArray[np.void], other: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    equal = np.ones(len(one), bool)
    for name in ("prompt", "completion"):
        equal &= one[name] == other[name]
    return equal
