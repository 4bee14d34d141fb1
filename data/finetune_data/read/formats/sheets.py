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
from finetune_data.confined.memory import limited_data
from finetune_data.read.findings import Finding, detail, shown
from finetune_data.read.formats.cells import json_value
from finetune_data.read.formats.headers import HeaderError, Note, Table

Record = tuple[int, JsonObject | Finding]
CELL_CHARACTERS = 32_767  # Excel truncates longer texts without a warning
COLUMNS = 1000
TAGS, BLOCK_BYTES = 12_000_000, 2**20  # of the table of texts: a text has at least three
TEXT_BYTES = 3 * 2**29  # that openpyxl may allocate for it


class Workbook:
    """`sheets` and `sheet` are known once `rows` has begun."""

    def __init__(self, path: Path, wanted: str | None, limits: DataLimits, note: Note) -> None:
        self._path = path
        self._note = note
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
            with limited_data(TEXT_BYTES):
                book = load_workbook(self._path, read_only=True, data_only=True, keep_links=False)
        except MemoryError:
            message = "the texts of the workbook need too much memory: save the sheet as CSV"
            yield 1, Finding("file-too-large", message, fatal=True)
            return
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
        table = Table(self._note)
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            try:
                row = [json_value(cell) for cell in cells[:COLUMNS]]
                record = table.record(row, is_complete=False)
            except HeaderError as error:
                yield number, Finding("header", str(error), number, unit="row", fatal=True)
                return
            if isinstance(record, Finding):
                yield number, Finding(record.code, record.message, number, unit="row")
            elif record is not None:
                yield number, _checked(record, number)

    def _find_bomb(self) -> Finding | None:
        try:
            with zipfile.ZipFile(self._path) as archive:
                size = sum(info.file_size for info in archive.infolist())
                if problem := self._find_many_texts(archive):
                    return problem
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            return _broken(error)
        if size <= 4 * self._limits.max_file_bytes:  # XML needs four bytes per byte of text
            return None
        message = f"the workbook has {size:,} bytes after decompression, more than the limit"
        return Finding("file-too-large", message, fatal=True)

    def _find_many_texts(self, archive: zipfile.ZipFile) -> Finding | None:
        """The table of texts is in memory as a whole, whatever rows it is used in."""
        for info in archive.infolist():
            if not info.filename.lower().endswith("sharedstrings.xml"):
                continue
            if info.file_size > self._limits.max_file_bytes:
                message = f"the workbook has {info.file_size:,} bytes of texts, more than the limit"
                return Finding("file-too-large", message, fatal=True)
            tags = 0
            with archive.open(info) as part:
                while block := part.read(BLOCK_BYTES):
                    tags += block.count(b"<")
                    if tags > TAGS:
                        message = "the workbook has millions of texts, more than the limit"
                        return Finding("file-too-large", message, fatal=True)
        return None


def _checked(record: JsonObject, number: int) -> JsonObject | Finding:
    """The record, unless Excel cut one of its texts."""
    cut = next((name for name, value in record.items() if _is_cut(value)), None)
    if cut is None:
        return record
    message = f"{shown(cut)} has {CELL_CHARACTERS:,} characters, where Excel cuts texts"
    return Finding("cut-cell", message, number, unit="row")


def _is_cut(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= CELL_CHARACTERS


def _broken(error: Exception) -> Finding:
    message = f"the workbook cannot be read ({type(error).__name__}: {detail(error)})"
    return Finding("format", message, fatal=True)
