"""A data file to batches of examples: unpack, tell the format, read records, find the shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from finetune_api.limits import DataLimits
from finetune_data.read.examples import Batch, Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.read.formats.compression import (
    BOM,
    PARQUET,
    ZIP,
    Peeked,
    name_compression,
    name_stranger,
    read_blocks,
)
from finetune_data.read.formats.delimited import DELIMITERS, find_delimiter, read_delimited
from finetune_data.read.formats.json_text import decode_line, find_key
from finetune_data.read.formats.json_values import read_json
from finetune_data.read.formats.lines import Line, read_lines
from finetune_data.read.formats.parquet import read_parquet
from finetune_data.read.formats.plain_text import read_text
from finetune_data.read.formats.sheets import Workbook
from finetune_data.read.shapes import Cells, Problem, Shape, detect_shape
from finetune_data.read.sources import LocalSource, S3Source, ending_of

BATCH_EXAMPLES = 1_000
BATCH_CHARACTERS = 2_000_000
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".text": "txt",
    ".md": "txt",
    ".parquet": "parquet",
}
NAMES = {
    "csv": "CSV",
    "tsv": "TSV",
    "xlsx": "XLSX",
    "json": "JSON",
    "jsonl": "JSONL",
    "txt": "text",
    "parquet": "Parquet",
}
UNKNOWN = (
    "no format that is known here: name it .csv, .tsv, .txt, .json, .jsonl, .xlsx or .parquet, "
    "or say --format"
)
LIMITS = DataLimits()


@dataclass(frozen=True)
class ReadOptions:
    """What the reader is told; None: found out."""

    limits: DataLimits = LIMITS
    format: str | None = None
    sheet: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None


@dataclass(frozen=True)
class Description:
    """How a file was read, for people."""

    name: str
    format: str = ""
    compression: str | None = None
    shape: str = ""
    columns: tuple[str, ...] = ()  # of the first record
    ignored: tuple[str, ...] = ()  # columns that nobody reads
    sheet: str | None = None
    sheets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # sentences


Item = Example | Finding


class Reader:
    """One data file. `description` is complete once a pass has begun to give examples."""

    def __init__(self, source: LocalSource | S3Source, options: ReadOptions | None = None) -> None:
        self.source = source
        self.options = options or ReadOptions()
        self.description = Description(source.name)
        self._shape: Shape | None = None
        self._is_copied = False

    def batches(self) -> Iterator[Batch]:
        """From the beginning, each time. A fatal finding is the last that comes.

        Raises DataError or StorageError where the file can't be reached.
        """
        self.description = Description(self.source.name)
        self._shape = None
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
            for item in self._items(Peeked(stream)):
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
            # what a format left unread belongs to the digest; a copy was read whole when made
            while not self._is_copied and stream.read(1024 * 1024):
                pass
        yield Batch(examples, findings, size, size)

    def _items(self, stream: Peeked) -> Iterator[Item]:
        head = stream.head
        if not head:
            return
        packed = name_compression(head)
        options, limits = self.options, self.options.limits
        ending = FORMATS.get(ending_of(self.source.name))
        if head.startswith(PARQUET) or head.startswith(ZIP):
            kind = "parquet" if head.startswith(PARQUET) else "xlsx"
            if options.format not in {None, kind} or (
                kind == "xlsx" and ending not in {None, kind}
            ):
                yield _strange(f"{'a Parquet' if kind == 'parquet' else 'an XLSX or ZIP'} file")
                return
            self._describe(format=NAMES[kind])
            yield from self._seekable(kind)
            return
        blocks = read_blocks(stream, limits)
        first = next(blocks, None)
        if first is None:
            return
        if isinstance(first, Finding):
            yield first
            return
        if packed and name_compression(first):
            yield _strange(f"a {name_compression(first)} file inside a {packed} file")
            return
        if (stranger := name_stranger(first)) is not None:
            yield _strange(stranger)
            return
        if packed and first.startswith((PARQUET, ZIP)):
            yield _strange(f"a Parquet or XLSX file inside a {packed} file: unpack it first")
            return
        told = options.format or _tell(first, ending)
        if told is None or told in {"parquet", "xlsx"}:
            yield _strange(UNKNOWN if told is None else f"no {NAMES[told]} file")
            return
        self._describe(format=NAMES[told], compression=packed)
        if first.startswith(BOM):
            self._note("it begins with a byte order mark, which is left out")
        yield from self._text(told, _chain(first, blocks), first)

    def _text(self, kind: str, blocks: Iterator[bytes | Finding], first: bytes) -> Iterator[Item]:
        limits = self.options.limits
        if kind == "jsonl":
            yield from self._json_lines(blocks)
        elif kind == "json":
            if FORMATS.get(ending_of(self.source.name)) == "jsonl":
                self._note("it is called JSONL, and is one JSON document")
            yield from self._records(read_json(blocks, limits))
        elif kind == "txt":
            yield from self._records(read_text(blocks, limits))
        else:
            header = first.removeprefix(BOM).partition(b"\n")[0].decode("utf-8", "replace")
            delimiter = "\t" if kind == "tsv" else find_delimiter(header)
            if delimiter != {"csv": ",", "tsv": "\t"}[kind]:
                self._note(f"its cells are separated by {DELIMITERS[delimiter]}s")
            records = read_delimited(blocks, limits, delimiter)
            yield from self._records(records, is_table=True)

    def _seekable(self, kind: str) -> Iterator[Item]:
        path, limits = self.source.local_path(), self.options.limits
        self._is_copied = True
        if kind == "parquet":
            yield from self._records(read_parquet(path, limits), is_table=True, unit="row")
            return
        book = Workbook(path, self.options.sheet, limits)
        for item in self._records(book.rows(), is_table=True, unit="row"):
            if book.sheets != self.description.sheets:
                self._describe(sheets=book.sheets, sheet=book.sheet)
            yield item

    # --- records ----------------------------------------------------------------------------------

    def _records(
        self,
        records: Iterator[tuple[int, dict[str, Any] | Finding]],
        *,
        is_table: bool = False,
        unit: str = "line",
    ) -> Iterator[Item]:
        for line, record in records:
            if isinstance(record, Finding):
                yield record
                continue
            found = self._convert(line, Cells(record) if is_table else record)
            if isinstance(found, Problem) and is_table and self._shape is None:
                yield Finding(found.code, found.message, fatal=True)  # of the header: of all rows
                return
            if isinstance(found, Problem):
                yield Finding(found.code, found.message, line, unit=unit)
            else:
                yield found

    def _json_lines(self, blocks: Iterator[bytes | Finding]) -> Iterator[Item]:
        """The hot path: orjson where a line is beyond doubt, the exact reader for all others."""
        from orjson import JSONDecodeError, loads

        limits = self.options.limits
        prompt_mark, completion_mark = b'"prompt"', b'"completion"'
        is_plain = False  # the shape is prompt/completion by those very names
        for item in read_lines(blocks, limits):
            if isinstance(item, Finding):
                yield item
                continue
            number, data = item
            if (
                is_plain
                and data.count(prompt_mark) == 1
                and data.count(completion_mark) == 1
                and (b"\\u" not in data or not _has_doubtful_escape(data))
            ):
                try:
                    value = loads(data)
                except JSONDecodeError:
                    value = None
                if type(value) is dict and len(value) == 2:
                    prompt, completion = value.get("prompt"), value.get("completion")
                    if type(prompt) is str and type(completion) is str and completion:
                        yield Row(number, prompt, completion)
                        continue
            yield self._exact(item)
            is_plain = self._shape is not None and self._shape.columns == ("prompt", "completion")

    def _exact(self, line: Line) -> Item:
        decoded = decode_line(line, self.options.limits.max_nesting)
        if isinstance(decoded, Finding):
            return decoded
        value, text = decoded
        start = len(text) - len(text.lstrip())
        if not isinstance(value, dict):
            found: Example | Problem = Problem("not-object", _no_object(value))
        else:
            found = self._convert(line.number, value)
        if not isinstance(found, Problem):
            return found
        position = find_key(text, found.key) if found.key is not None else start
        return Finding(found.code, found.message, line.number, position + 1)

    def _convert(self, line: int, record: dict[str, Any]) -> Example | Problem:
        if self._shape is None:
            found = detect_shape(record, self.options.prompt_column, self.options.completion_column)
            if isinstance(found, Problem):
                if not self.description.columns:
                    self._describe(columns=tuple(record)[:50])
                return found
            self._shape = found
            self._describe(
                shape=found.name, columns=tuple(record)[:50], ignored=found.ignored(record)
            )
            if found.note:
                self._note(found.note)
        return self._shape.convert(line, record)

    # --- what people are told ---------------------------------------------------------------------

    def _describe(self, **changes: Any) -> None:
        self.description = replace(self.description, **changes)

    def _note(self, sentence: str) -> None:
        if sentence not in self.description.notes:
            self._describe(notes=(*self.description.notes, sentence))


def _tell(first: bytes, ending: str | None) -> str | None:
    """The format of a text: by its first characters where they are JSON's, else by its name."""
    text = first.removeprefix(BOM).lstrip()
    if ending in {None, "json", "jsonl"} and text[:1] in {b"[", b"{"}:
        if text.startswith(b"["):
            return "json"
        line, _, rest = text.partition(b"\n")
        if ending == "json" and not rest.strip():
            return "json"  # one object on one line, which may hold the rows
        # one object a line, or an object that goes on over several
        return "jsonl" if line.rstrip().endswith(b"}") or not rest else "json"
    if ending in {"parquet", "xlsx"}:
        return ending
    return ending


def _chain(first: bytes | Finding, rest: Iterator[bytes | Finding]) -> Iterator[bytes | Finding]:
    yield first
    yield from rest


def _has_doubtful_escape(data: bytes) -> bool:
    """Escapes of ASCII, which may hide a key or a NUL, and halves of surrogate pairs."""
    return b"\\u00" in data or b"\\ud" in data or b"\\uD" in data


def _strange(what: str) -> Finding:
    return Finding("format", f"this is {what}", fatal=True)


def _no_object(value: Any) -> str:
    from finetune_data.read.formats.json_text import name_kind

    return f"{name_kind(value)}, expected an object with prompt and completion"


def _characters(conversation: Conversation) -> int:
    return sum(len(message["content"]) for message in conversation.messages) + 1


def _position(stream: Any) -> int:
    position: int = stream.position
    return position
