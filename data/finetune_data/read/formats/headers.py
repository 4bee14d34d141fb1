"""The header of a table, and the rows below it, as spreadsheet programs export them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, counted, shown
from finetune_data.read.problems import text_problem

MARK = "\ufeff"  # a byte order mark
Note = Callable[[str], None]  # gets a sentence about how the file is read


class HeaderError(Exception):
    """A header without clear names of columns."""


class Table:
    """Converts the rows of one table to records. The first row that is not empty is the header.

    Columns without a name at the end must be empty. A column without a name before others, such as
    the row numbers that pandas writes, is ignored, which `note` gets to know.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self._names: list[str] | None = None

    def record(self, cells: Sequence[Any], *, is_complete: bool) -> JsonObject | Finding | None:
        """The record of a row; None for the header and for empty rows.

        is_complete: whether a row has as many cells as the header. A sheet has no such rows. Raises
        HeaderError.
        """
        filled = len(cells)
        while filled and _is_empty(cells[filled - 1]):
            filled -= 1
        if not filled:
            return None
        if self._names is None:
            self._names = _names(cells[:filled])
            return None
        names = self._names
        if filled > len(names) or (is_complete and len(cells) < len(names)):
            have = counted(filled if filled > len(names) else len(cells), "cell")
            want = counted(len(names), "column")
            return Finding("cells", f"{have}, but the header has {want}")
        padded = [*cells[: len(names)], *[None] * (len(names) - len(cells))]
        if padded == names and len(names) > 1:
            return Finding("header", "the header again: were files joined?")
        self._note_unnamed(padded)
        return {name: cell for name, cell in zip(names, padded, strict=True) if name}

    def _note_unnamed(self, cells: Sequence[Any]) -> None:
        assert self._names is not None
        if "" not in self._names:
            return
        for number, (name, cell) in enumerate(zip(self._names, cells, strict=True), 1):
            if not name and not _is_empty(cell):
                self._note(f"column {number} has no name and is ignored")


def _names(cells: Sequence[Any]) -> list[str]:
    names = ["" if _is_empty(cell) else str(cell).strip(MARK) for cell in cells]
    for name in names:
        if (problem := text_problem(name)) is not None:
            raise HeaderError(f"the header {problem[1]}")
    repeated = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if repeated:
        raise HeaderError(f"the header has the column {shown(repeated[0])} twice")
    return names


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell)
