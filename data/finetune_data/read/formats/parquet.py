"""Parquet, read in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, detail
from finetune_data.read.formats.cells import cell_text

Record = tuple[int, JsonObject | Finding]
ROWS = 1000  # of a batch


def read_parquet(path: Path, limits: DataLimits) -> Iterator[Record]:
    """A record per row, numbered from 1."""
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
            for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {str(key): _value(value) for key, value in row.items()}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        message = f"the Parquet file cannot be read: {detail(error)}"
        yield number + 1, Finding("format", message, fatal=True)


def _value(value: object) -> object:
    """The value of a cell, without the fields of a struct that have no value."""
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return cell_text(value)
