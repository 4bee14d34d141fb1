"""From a data file to batches of examples: decompress, detect the format, read, convert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune_api.limits import DataLimits
from finetune_api.names import Reason
from finetune_data import failures
from finetune_data.confined.sections import GIB, Section, Subject
from finetune_data.read.examples import REASONING, Batch, Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.read.formats.compression import (
    BOM,
    PARQUET,
    ZIP,
    PeekedStream,
    name_compression,
    name_foreign_format,
    read_blocks,
)
from finetune_data.read.formats.delimited import read_delimited
from finetune_data.read.formats.detection import FORMATS, NAMES, UNKNOWN, detect_text_format
from finetune_data.read.formats.encodings import (
    Blocks,
    find_wide_encoding,
    has_old_line_ends,
    name_encoding,
    take_head,
    to_utf8,
    with_line_feeds,
    without_marks,
)
from finetune_data.read.formats.json_values import read_json
from finetune_data.read.formats.parquet import read_parquet
from finetune_data.read.formats.plain_text import read_text
from finetune_data.read.formats.sheets import Workbook
from finetune_data.read.json_lines import read_json_lines
from finetune_data.read.records import Description, ReadResult, RecordConverter
from finetune_data.read.sources import LocalSource, S3Source, ending_of

READ_SECONDS, READ_BYTES = 45.0, 3 * GIB // 2  # of one batch
BATCH_EXAMPLES = 1_000
BATCH_CHARACTERS = 2_000_000
LIMITS = DataLimits()


@dataclass(frozen=True)
class ReadOptions:
    """Settings of the user; None: detected."""

    limits: DataLimits = LIMITS
    format: str | None = None
    encoding: str | None = None  # of text, as Python names it
    sheet: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None


def reading(name: str, param: str | None = None) -> Section:
    """The section of reading a batch of a file. name: of the file, for messages."""
    subject = Subject(f"reading {name}", failures.REPAIR_DATA, str(Reason.INVALID_DATA), param)
    return Section(subject, READ_SECONDS, READ_BYTES, has_place=False)


class Reader:
    """One data file."""

    def __init__(self, source: LocalSource | S3Source, options: ReadOptions | None = None) -> None:
        self.source = source
        self.options = options or ReadOptions()
        self._converter = self._new_converter()
        self._is_copied = False

    @property
    def description(self) -> Description:
        """How the file was read. It is complete once a pass has given examples."""
        return self._converter.description

    def _new_converter(self) -> RecordConverter:
        options = self.options
        return RecordConverter(self.source.name, options.prompt_column, options.completion_column)

    def batches(self) -> Iterator[Batch]:
        """All examples and findings, each time from the start. Nothing follows a fatal finding.

        Raises DataError or StorageError for a file that cannot be reached.
        """
        self._converter = self._new_converter()
        size = self.source.size
        examples: list[Example] = []
        findings: list[Finding] = []
        characters = 0
        limits = self.options.limits
        if size > limits.max_file_bytes:
            message = (
                f"the file has {size:,} bytes, more than the {limits.max_file_bytes:,} allowed"
            )
            yield Batch([], [Finding("file-too-large", message, fatal=True)], 0, size)
            return
        with self.source.open() as stream:
            for item in self._read(PeekedStream(stream)):
                if isinstance(item, Row):
                    examples.append(item)
                    characters += len(item[1]) + len(item[2])
                elif isinstance(item, Finding):
                    findings.append(item)
                else:
                    examples.append(item)
                    characters += _characters(item)
                if (
                    len(examples) + len(findings) >= BATCH_EXAMPLES
                    or characters >= BATCH_CHARACTERS
                ):
                    yield Batch(examples, findings, min(_position(stream), size), size)
                    examples, findings, characters = [], [], 0
            # the digest covers bytes that a format does not read; a copy was read completely
            while not self._is_copied and stream.read(1024 * 1024):
                pass
        yield Batch(examples, findings, size, size)

    def _read(self, stream: PeekedStream) -> Iterator[ReadResult]:
        head = stream.head
        if not head:
            return
        packed = name_compression(head)
        options, limits = self.options, self.options.limits
        by_name = FORMATS.get(ending_of(self.source.name))
        if head.startswith(PARQUET) or head.startswith(ZIP):
            kind = "parquet" if head.startswith(PARQUET) else "xlsx"
            if options.format not in {None, kind} or (
                kind == "xlsx" and by_name not in {None, kind}
            ):
                yield _format_error(
                    "a Parquet file" if kind == "parquet" else "an XLSX or ZIP file"
                )
                return
            self._converter.describe(format=NAMES[kind])
            yield from self._read_seekable(kind)
            return
        first, blocks = take_head(read_blocks(stream, limits))
        if not first:
            yield from (item for item in blocks if isinstance(item, Finding))
            return
        if packed and name_compression(first):
            yield _format_error(f"a {name_compression(first)} file inside a {packed} file")
            return
        if (foreign := name_foreign_format(first)) is not None:
            yield _format_error(foreign)
            return
        if packed and first.startswith((PARQUET, ZIP)):
            yield _format_error(f"a Parquet or XLSX file inside a {packed} file: unpack it first")
            return
        first, blocks = self._as_utf8(first, blocks)
        kind_found = options.format or detect_text_format(first, by_name)
        if kind_found is None or kind_found in {"parquet", "xlsx"}:
            yield _format_error(UNKNOWN if kind_found is None else f"no {NAMES[kind_found]} file")
            return
        self._converter.describe(format=NAMES[kind_found], compression=packed)
        if by_name == "txt" and kind_found in {"csv", "tsv"} and options.format is None:
            self._converter.note("the file is named as a text, but is a table")
        if has_old_line_ends(first, is_table=kind_found in {"csv", "tsv"}):
            self._converter.note("the lines end with a carriage return, as on old Macs")
            blocks = with_line_feeds(blocks)
        yield from self._read_text(kind_found, blocks)

    def _as_utf8(self, first: bytes, blocks: Blocks) -> tuple[bytes, Blocks]:
        """The first bytes and all blocks as UTF-8 without byte order marks, with notes about it."""
        encoding = self.options.encoding or find_wide_encoding(first)
        if encoding is not None and encoding != "utf-8":
            name = name_encoding(encoding)
            self._converter.note(f"the file is {name} text, which is read as UTF-8")
            blocks = to_utf8(blocks, encoding)
        elif first.startswith(BOM):
            self._converter.note("the file begins with a byte order mark, which is ignored")
        return take_head(without_marks(blocks))

    def _read_text(self, kind: str, blocks: Blocks) -> Iterator[ReadResult]:
        limits, converter = self.options.limits, self._converter
        if kind == "jsonl":
            yield from read_json_lines(blocks, limits, converter)
        elif kind == "json":
            if FORMATS.get(ending_of(self.source.name)) == "jsonl":
                converter.note("the file is named JSONL, but is one JSON document")
            yield from converter.convert_all(read_json(blocks, limits))
        elif kind == "txt":
            yield from converter.convert_all(read_text(blocks, limits))
        else:
            usual = "\t" if kind == "tsv" else None
            records = read_delimited(blocks, limits, converter.note, usual=usual)
            yield from converter.convert_all(records, is_table=True)

    def _read_seekable(self, kind: str) -> Iterator[ReadResult]:
        path, limits, converter = self.source.local_path(), self.options.limits, self._converter
        self._is_copied = True
        if kind == "parquet":
            records = read_parquet(path, limits)
            yield from converter.convert_all(records, is_table=True, unit="row")
            return
        book = Workbook(path, self.options.sheet, limits, converter.note)
        for item in converter.convert_all(book.rows(), is_table=True, unit="row"):
            if book.sheets != self.description.sheets:
                converter.describe(sheets=book.sheets, sheet=book.sheet)
            yield item


def _format_error(what: str) -> Finding:
    return Finding("format", f"this is {what}", fatal=True)


def _characters(conversation: Conversation) -> int:
    characters = 1
    for message in conversation.messages:
        characters += len(message["content"])
        if len(message) > 2:
            characters += len(message.get(REASONING, ""))
    return characters


def _position(stream: Any) -> int:
    position: int = stream.position
    return position
