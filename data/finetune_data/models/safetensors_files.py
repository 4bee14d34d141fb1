"""The headers of safetensors files, read and checked without the weights.

The format: 8 bytes of little-endian header length, a JSON header with the type, the shape, and the
byte range of each tensor, and the bytes. The ranges cover the file without overlaps and holes, as
the library requires. A download or an upload that ended early has ranges beyond the file's end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

LENGTH_BYTES = 8  # of the number in front of the header
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
NO_FILE = "is not a safetensors file, or is cut off"
METADATA = "__metadata__"
MAX_DIMENSIONS = 64

# The bits of an element, by the name of its type in a header.
BITS: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: the name of its type, its shape, and its range in the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes after the header
    end: int

    @property
    def size(self) -> int:
        """The bits that the type and the shape need."""
        return prod(self.shape) * BITS[self.dtype]


def find_truncation(path: Path) -> str | None:
    """The defect of the file, in words; None for a complete file."""
    try:
        read_tensors(path)
    except ValueError as error:
        return str(error)
    return None


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file on the disk, by name. Raises ValueError, in words, if it is damaged."""
    return parse_header(*read_header(path))


def read_header(path: Path) -> tuple[bytes, int]:
    """The JSON header of a file on the disk, and the bytes that follow it. Raises ValueError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = header_length(file.read(LENGTH_BYTES), size)
        return file.read(length), size - LENGTH_BYTES - length


def header_length(start: bytes, file_size: int) -> int:
    """The bytes of the header after the first 8 bytes of the file, which are `start`."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    limit = min(MAX_HEADER_BYTES, file_size - LENGTH_BYTES)
    if len(start) < LENGTH_BYTES or not 2 <= length <= limit:
        raise ValueError(NO_FILE)
    return length


def parse_header(text: bytes, data_bytes: int) -> dict[str, StoredTensor]:
    """The tensors of a header, in the order of their bytes. data_bytes: the file's size without it.

    Raises ValueError, in words, for a header that the library or torch would refuse.
    """
    try:
        entries = json.loads(text)
        tensors = {
            str(name): StoredTensor(
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                start=entry["data_offsets"][0],
                end=entry["data_offsets"][1],
            )
            for name, entry in entries.items()
            if name != METADATA
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError("does not have the header of a safetensors file") from error
    for name, tensor in tensors.items():
        _check_values(name, tensor)
    end = max((tensor.end for tensor in tensors.values()), default=0)
    if end != data_bytes:
        sizes = f"{len(text) + 8 + data_bytes:,} bytes, but its header says"
        raise ValueError(f"has {sizes} {len(text) + 8 + end:,}")
    return _checked_ranges(tensors)


def _check_values(name: str, tensor: StoredTensor) -> None:
    numbers = (*tensor.shape, tensor.start, tensor.end)
    are_sizes = all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    if not are_sizes or len(tensor.shape) > MAX_DIMENSIONS:
        raise ValueError(f"has a tensor with an impossible shape or place: {name}")
    if not isinstance(tensor.dtype, str) or tensor.dtype not in BITS:
        raise ValueError(f"has a tensor of the unknown type {tensor.dtype!r:.20}: {name}")


def _checked_ranges(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors by their place. Raises ValueError for overlaps, holes, and wrong sizes."""
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
    end, former = 0, None
    for name, tensor in ordered.items():
        if tensor.start < end:
            raise ValueError(f"has tensors that overlap: {former} and {name}")
        if tensor.start > end:
            raise ValueError(f"has {tensor.start - end:,} bytes of no tensor before {name}")
        if 8 * (tensor.end - tensor.start) != tensor.size:
            shape = list(tensor.shape)
            raise ValueError(
                f"has {tensor.end - tensor.start:,} bytes for {name}, which do not fit its type "
                f"{tensor.dtype} and its shape {shape}"
            )
        end, former = tensor.end, name
    return ordered
