"""Parquet, read in batches of rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, detail, shown
from finetune_data.read.formats.cells import json_value

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch

Record = tuple[int, JsonObject | Finding]
ROWS = 1000  # of a batch
_INDEX = re.compile("__index_level_[0-9]+__")  # the row numbers that pandas writes


def read_parquet(path: Path, limits: DataLimits) -> Iterator[Record]:
    """A record per row, numbered from 1, with the values of JSON."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(
            path,
            memory_map=False,
            thrift_string_size_limit=limits.max_file_bytes,
            thrift_container_size_limit=1_000_000,
        ) as file:
            groups = range(file.metadata.num_row_groups)
            size = sum(file.metadata.row_group(index).total_byte_size for index in groups)
            if size > limits.max_file_bytes or file.metadata.num_rows > limits.max_file_bytes:
                message = f"the file has {size:,} bytes after decompression, more than the limit"
                yield 1, Finding("file-too-large", message, fatal=True)
                return
            repeated = [name for name, n in Counter(file.schema_arrow.names).items() if n > 1]
            if repeated:
                message = f"the file has the column {shown(repeated[0])} twice"
                yield 1, Finding("header", message, fatal=True)
                return
            for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
                for row in _rows(batch):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        message = f"the Parquet file cannot be read: {detail(error)}"
        yield number + 1, Finding("format", message, fatal=True)


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
