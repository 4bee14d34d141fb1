"""Parquet, read in batches of rows.

Texts stay in their dictionaries until the size of the decoded rows is known, because a dictionary
page of a few hundred bytes can become a gigabyte. Rows are then decoded in small parts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.confined.memory import limited_data, limited_items
from finetune_data.read.findings import Finding, detail, shown
from finetune_data.read.formats.cells import json_value
from finetune_data.read.formats.decoded_size import VALUE_BYTES, small_parts

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch
    from pyarrow.parquet import ParquetFile

Record = tuple[int, JsonObject | Finding]
ROWS = 1000  # of a batch
DELTA_ROWS, DELTAS = 100, frozenset({"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"})
COLUMNS = 1000
ROW_LINES = 8  # limit of a row, in line limits, as in CSV
FIXED_BYTES = 65_536  # of a value of a fixed size
PART_BYTES = 8 * 2**20  # that are decoded at once
BATCH_BYTES = 2**30  # that the library may allocate for a batch
_INDEX = re.compile("__index_level_[0-9]+__")  # the row numbers that pandas writes


def read_parquet(path: Path, limits: DataLimits) -> Iterator[Record]:
    """A record per row, numbered from 1, with the values of JSON."""
    import pyarrow

    number, total = 0, 0
    try:
        with limited_data(BATCH_BYTES):
            file, batch_rows = _open(path, limits)
        with file:
            if problem := _find_excess(file, limits):
                yield 1, problem
                return
            longest = ROW_LINES * limits.max_line_bytes
            batches = file.iter_batches(batch_size=batch_rows, use_threads=False)
            for batch in limited_items(batches, BATCH_BYTES):
                for part, size in small_parts(batch, min(PART_BYTES, longest)):
                    total += size
                    if total > limits.max_file_bytes:
                        yield number + 1, _too_large(f"more than {limits.max_file_bytes:,}")
                        return
                    if part.num_rows == 1 and size > longest:
                        number += 1
                        message = f"longer than {limits.max_line_bytes:,} bytes"
                        yield number, Finding("line-too-long", message, number, unit="row")
                        continue
                    for row in _rows(part):
                        number += 1
                        yield number, row
    except MemoryError:
        message = "the Parquet file needs too much memory: write it with smaller pages and rows"
        yield number + 1, Finding("format", message, fatal=True)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        message = f"the Parquet file cannot be read: {detail(error)}"
        yield number + 1, Finding("format", message, fatal=True)


def _open(path: Path, limits: DataLimits) -> tuple[ParquetFile, int]:
    """The file, whose texts stay in dictionaries, and the rows of a batch.

    Texts that are stored as differences cannot, but they can become larger as well.
    """
    from pyarrow import parquet

    options = {
        "memory_map": False,
        "thrift_string_size_limit": limits.max_file_bytes,
        "thrift_container_size_limit": 1_000_000,
    }
    with parquet.ParquetFile(path, **options) as file:
        metadata = file.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        columns = {}
        for index in range(min(len(metadata.schema), COLUMNS + 1)):
            column = metadata.schema.column(index)
            kinds = {kind for group in groups for kind in group.column(index).encodings}
            if column.physical_type == "BYTE_ARRAY":
                columns[column.path] = kinds.isdisjoint(DELTAS)
    texts = [path for path, is_readable in columns.items() if is_readable]
    rows = ROWS if all(columns.values()) else DELTA_ROWS
    return parquet.ParquetFile(path, read_dictionary=texts, **options), rows


def _find_excess(file: ParquetFile, limits: DataLimits) -> Finding | None:
    """What the metadata says about a file that is too large; None for a usual one."""
    metadata, most = file.metadata, limits.max_file_bytes
    if len(metadata.schema) > COLUMNS:
        message = f"the file has {len(metadata.schema):,} columns, more than {COLUMNS:,}"
        return Finding("file-too-large", message, fatal=True)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if size > most or metadata.num_rows > most:
        return _too_large(f"{size:,}")
    values = max(
        (group.column(index).num_values for group in groups for index in range(group.num_columns)),
        default=0,
    )
    if values > most // VALUE_BYTES:
        message = f"the file has {values:,} values in a column, more than {most // VALUE_BYTES:,}"
        return Finding("file-too-large", message, fatal=True)
    for index in range(len(metadata.schema)):
        column = metadata.schema.column(index)
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > FIXED_BYTES:
            message = f"the column {shown(column.path)} has values of {column.length:,} bytes"
            return Finding("file-too-large", message, fatal=True)
    repeated = [name for name, n in Counter(file.schema_arrow.names).items() if n > 1]
    if repeated:
        message = f"the file has the column {shown(repeated[0])} twice"
        return Finding("header", message, fatal=True)
    return None


def _too_large(size: str) -> Finding:
    message = f"the file has {size} bytes after decompression, more than the limit"
    return Finding("file-too-large", message, fatal=True)


def _rows(batch: RecordBatch) -> Iterator[JsonObject]:
    names = [name for name in batch.schema.names if not _INDEX.fullmatch(name)]
    columns = []
    for name in names:
        column = batch.column(batch.schema.get_field_index(name))
        kind = _convertible(column.type)
        if kind != column.type:
            column = column.cast(kind, safe=False)
        maps = "strict" if _has_map(kind) else None  # "strict" is slower
        columns.append(column.to_pylist(maps_as_pydicts=maps))
    for values in zip(*columns, strict=True):
        yield {name: json_value(value) for name, value in zip(names, values, strict=True)}


def _convertible(kind: DataType) -> DataType:
    """The type with microseconds for nanoseconds, which Python's types do not have."""
    from pyarrow import duration, field, large_list, list_, struct, time64, timestamp, types

    if types.is_timestamp(kind) and kind.unit == "ns":
        return timestamp("us", kind.tz)
    if types.is_time64(kind) and kind.unit == "ns":
        return time64("us")
    if types.is_duration(kind) and kind.unit == "ns":
        return duration("us")
    if types.is_struct(kind):
        return struct([field(one.name, _convertible(one.type)) for one in kind])
    if types.is_dictionary(kind):
        return kind
    if types.is_large_list(kind):
        return large_list(_convertible(kind.value_type))
    if types.is_list(kind):
        return list_(_convertible(kind.value_type))
    return kind


def _has_map(kind: DataType) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(_has_map(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _has_map(kind.value_type)
    return bool(types.is_map(kind))
