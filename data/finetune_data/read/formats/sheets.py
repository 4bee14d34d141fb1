"""Workbooks (.xlsx): one sheet, whose first row is the header.

Rows are streamed. openpyxl holds the workbook's table of texts in memory, so this is the only
format whose memory grows with the file. (Excel has at most 1,048,576 rows.)
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, detail, shown
from finetune_data.read.formats.cells import cell_text

Record = tuple[int, JsonObject | Finding]
CELL_CHARACTERS = 32_767  # Excel truncates longer texts without a warning
COLUMNS = 1000


class Workbook:
    """`sheets` and `sheet` are known once `rows` has begun."""

    def __init__(self, path: Path, wanted: str | None, limits: DataLimits) -> None:
        self._path = path
        self._wanted = wanted
        self._limits = limits
        self.sheets: tuple[str, ...] = ()
        self.sheet: str | None = None

    def rows(self) -> Iterator[Record]:
        """A record per row that is not empty."""
        from openpyxl import load_workbook

        if (bomb := self._find_bomb()) is not None:
            yield 1, bomb
            return
        try:
            book = load_workbook(self._path, read_only=True, data_only=True, keep_links=False)
        except Exception as error:  # openpyxl raises many types for a broken file
            yield 1, _broken(error)
            return
        try:
            self.sheets = tuple(book.sheetnames)
            self.sheet = self._wanted if self._wanted is not None else next(iter(self.sheets), None)
            if self.sheet not in self.sheets:
                names = ", ".join(shown(name) for name in self.sheets) or "none"
                message = f"there is no sheet {shown(self.sheet or '')}; the sheets are {names}"
                yield 1, Finding("sheet", message, fatal=True)
                return
            is_empty = True
            for record in self._records(book[self.sheet]):
                is_empty = False
                yield record
            if is_empty and len(self.sheets) > 1:
                names = ", ".join(shown(name) for name in self.sheets)
                message = (
                    f"the sheet {shown(self.sheet)} has no rows under a header; the sheets are "
                    f"{names}: choose one with --sheet"
                )
                yield 1, Finding("sheet", message, fatal=True)
        except Exception as error:
            yield 1, _broken(error)
        finally:
            book.close()

    def _records(self, sheet: Any) -> Iterator[Record]:
        if not hasattr(sheet, "iter_rows"):
            yield 1, Finding("sheet", "the sheet is a chart and has no rows", fatal=True)
            return
        if hasattr(sheet, "reset_dimensions"):
            sheet.reset_dimensions()  # the dimensions in a file can be wrong
        header: list[str] | None = None
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            values = [cell_text(cell) for cell in cells[:COLUMNS]]
            while values and values[-1] is None:
                values.pop()
            if not values:
                continue
            if header is None:
                header = ["" if value is None else str(value) for value in values]
                if len(set(filter(None, header))) < len(list(filter(None, header))):
                    message = "the header has a column twice"
                    yield number, Finding("header", message, number, unit="row", fatal=True)
                    return
                continue
            if len(values) > len(header):
                message = f"{len(values)} cells, but the header has {len(header)} columns"
                yield number, Finding("cells", message, number, unit="row")
                continue
            values += [None] * (len(header) - len(values))
            record = {name: value for name, value in zip(header, values, strict=True) if name}
            cut = next((n for n, v in record.items() if _is_cut(v)), None)
            if cut is not None:
                message = f"{shown(cut)} has {CELL_CHARACTERS:,} characters, where Excel cuts texts"
                yield number, Finding("cut-cell", message, number, unit="row")
            else:
                yield number, record

    def _find_bomb(self) -> Finding | None:
        try:
            with zipfile.ZipFile(self._path) as archive:
                size = sum(info.file_size for info in archive.infolist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            return _broken(error)
        if size <= 4 * self._limits.max_file_bytes:  # XML needs four bytes per byte of text
            return None
        message = f"the workbook has {size:,} bytes after decompression, more than the limit"
        return Finding("file-too-large", message, fatal=True)


def _is_cut(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= CELL_CHARACTERS


def _broken(error: Exception) -> Finding:
    message = f"the workbook cannot be read ({type(error).__name__}: {detail(error)})"
    return Finding("format", message, fatal=True)
