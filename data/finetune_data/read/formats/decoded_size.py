"""The size of Parquet values after decoding, computed before they are decoded.

A dictionary has a text once, and each cell a number. A few hundred bytes can thus be a gigabyte of
text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow import RecordBatch

CELL_BYTES, VALUE_BYTES = 8, 4  # of a cell, and of a value inside of one, next to its text


def decoded_size(array: Any, own: int = CELL_BYTES) -> int:
    """The bytes of all values. array: of pyarrow, possibly a slice. own: next to a value's text."""
    from pyarrow import compute, int64, types

    kind = array.type
    size = own * len(array)
    if types.is_dictionary(kind):
        lengths = _lengths(array.dictionary)
        if lengths is not None:
            found = compute.sum(lengths.cast(int64()).take(array.indices)).as_py()
            size += found or 0
    elif types.is_struct(kind):
        size += sum(decoded_size(child, VALUE_BYTES) for child in array.flatten())
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        size += decoded_size(array.flatten(), VALUE_BYTES)
    elif types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
        for part in (array.keys, array.items):
            size += decoded_size(part.slice(start, end - start), VALUE_BYTES)
    elif (lengths := _lengths(array)) is not None:
        size += compute.sum(lengths.cast(int64())).as_py() or 0
    elif types.is_fixed_size_binary(kind):
        size += kind.byte_width * len(array)
    return size


def _lengths(array: Any) -> Any | None:
    from pyarrow import compute, types

    kind = array.type
    is_text = types.is_string(kind) or types.is_large_string(kind)
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind)
    return compute.binary_length(array) if is_text or is_bytes else None


def small_parts(batch: RecordBatch, most: int) -> Iterator[tuple[RecordBatch, int]]:
    """The batch in parts of at most `most` decoded bytes, or of one row; and the size of each."""
    size = sum(decoded_size(column) for column in batch.columns)
    if size <= most or batch.num_rows <= 1:
        yield batch, size
        return
    half = batch.num_rows // 2
    yield from small_parts(batch.slice(0, half), most)
    yield from small_parts(batch.slice(half), most)
