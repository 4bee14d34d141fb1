"""What is said about whole files: copies, overlap, too little of something, and the verdict.

Pure: hashes and counts in, sentences out. A row costs 20 bytes here, whatever its length.
"""

from __future__ import annotations

from array import array
from collections import Counter
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_data.findings import TOO_LONG, FileFindings, counted, shown
from finetune_data.rows import Row

FEW_IN_A_CLASS = 100
FEW_FOR_GENERATION = 500
EXTRA_KEYS = 20  # names that are remembered

Hashes = npt.NDArray[np.uint64]


def _hash(text: str) -> int:
    """64 bits: two different rows of a million look alike once in 37 million files."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


class Fingerprints:
    """The rows of one file, as hashes."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._completions = array("Q")
        self._lines = array("I")
        self._extra_keys: Counter[str] = Counter()
        self._lines_with_extra = 0
        self._prompts = 0  # rows whose prompt is not empty

    def add(self, row: Row) -> None:
        """Rows hold no NUL, so it separates the two texts."""
        self._rows.append(_hash(f"{row.prompt}\0{row.completion}"))
        self._completions.append(_hash(row.completion))
        self._lines.append(min(row.line, 2**32 - 1))
        self._prompts += bool(row.prompt)
        if row.extra:
            self._lines_with_extra += 1
            for key in row.extra:
                if key in self._extra_keys or len(self._extra_keys) < EXTRA_KEYS:
                    self._extra_keys[key] += 1

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Hashes:
        return np.frombuffer(self._rows, dtype=np.uint64)

    def line(self, index: int) -> int:
        """Where row `index` stands in the file."""
        return self._lines[index]

    def extra_keys_advice(self, param: str) -> list[str]:
        """Keys beside prompt and completion."""
        if not self._extra_keys:
            return []
        names = ", ".join(shown(key) for key, _ in self._extra_keys.most_common(5))
        more = ", …" if len(self._extra_keys) > 5 else ""
        return [
            f"Keys other than prompt and completion are ignored: {names}{more}, on "
            f"{counted(self._lines_with_extra, 'line')} of {param}."
        ]

    def copies_advice(self, param: str) -> list[str]:
        """Examples that stand in the file more than once."""
        unique, first = np.unique(self.rows, return_index=True)
        copies = len(self) - len(unique)
        if not copies:
            return []
        is_copy = np.ones(len(self), dtype=bool)
        is_copy[first] = False
        index = int(np.argmax(is_copy))
        original = int(first[np.searchsorted(unique, self.rows[index])])
        return [
            f"Copies of earlier examples in {param}: {copies:,} (line {self.line(index)} repeats "
            f"line {self.line(original)})."
        ]

    def size_advice(self) -> list[str]:
        """Few examples for what the file seems to teach."""
        completions = np.frombuffer(self._completions, dtype=np.uint64)
        classes, first, counts = np.unique(completions, return_index=True, return_counts=True)
        if self._prompts and 1 < len(classes) < len(self) / 3:  # as the old tool told them apart
            smallest = int(np.argmin(counts))
            if counts[smallest] >= FEW_IN_A_CLASS:
                return []
            few = counted(int(counts[smallest]), "example")
            line = self.line(int(first[smallest]))
            return [
                f"The smallest of {len(classes)} classes has {few} (see line {line}); at least "
                f"{FEW_IN_A_CLASS} a class are advised."
            ]
        if len(self) >= FEW_FOR_GENERATION:
            return []
        return [
            f"The training file has {counted(len(self), 'example')}; at least {FEW_FOR_GENERATION} "
            "are advised for generation."
        ]


def overlap_advice(training: Fingerprints, validation: Fingerprints) -> list[str]:
    """Examples that stand in both files: validation then measures memory."""
    shared = np.isin(validation.rows, training.rows)
    count = int(shared.sum())
    if not count:
        return []
    line = validation.line(int(np.argmax(shared)))
    return [
        f"Examples of validationFile that trainingFile has too: {count:,} of {len(validation):,} "
        f"(line {line} is one); validation will look better than it is."
    ]


class CheckedFile(NamedTuple):
    """One data file after it was read."""

    findings: FileFindings
    rows: int  # right lines, too long ones not counted
    model: str
    context: int  # tokens

    @property
    def lines(self) -> int:
        """Lines with something on them."""
        return self.rows + self.findings.count


def verdict(file: CheckedFile, tolerance: float) -> Failure | None:
    """Whether the file can be used: None, or why not, with the first findings."""
    found = file.findings
    where = f"{found.param} {found.uri}"
    lines = [str(finding) for finding in found.first]

    def invalid(message: str) -> Failure:
        return Failure(
            code=Reason.INVALID_DATA, message=message, param=found.param, lines=lines or None
        )

    if found.fatal is not None:
        place = f", {found.fatal.place}" if found.fatal.place else ""
        return invalid(f"{where}{place}: {found.fatal.message}")
    if not file.lines:
        return invalid(f"{where}: the file is empty; expected one JSON object a line")
    if file.rows and found.count / file.lines <= tolerance + 1e-9:
        return None
    too_long = found.codes[TOO_LONG]
    if too_long > file.lines / 2:
        longer = next((one for one in found.first if one.code == TOO_LONG), found.first[0])
        return invalid(
            f"{where}: the majority of its examples, {too_long:,} of {file.lines:,}, have more "
            f"than the {file.context:,} tokens that {file.model} takes: shorten them, or take a "
            f"model with a longer context; the first is {longer}"
        )
    first = found.first[0]
    allowed = f", and dataTolerance allows {tolerance:.3g} of them" if tolerance else ""
    return invalid(
        f"{where}, {first.place}: {first.message} ({counted(found.count, 'wrong line')} of "
        f"{file.lines:,}{allowed}; see data-report.jsonl)"
    )


def skipped_advice(file: CheckedFile, tolerance: float) -> list[str]:
    """What a tolerance let pass."""
    found = file.findings
    if not found.count:
        return []
    return [
        f"Wrong lines skipped in {found.param}: {found.count:,} of {file.lines:,}, as "
        f"dataTolerance {tolerance:g} allows (the first: {found.first[0]}); see data-report.jsonl."
    ]
