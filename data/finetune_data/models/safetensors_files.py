"""Finds truncated safetensors files by their header.

The format: 8 bytes of little-endian header length, a JSON header with the byte range of each
tensor, and the bytes. A download or an upload that ended early has ranges beyond the file's end.
"""

import json
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library


def find_truncation(path: Path) -> str | None:
    """The defect of the file, in words; None for a complete file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            return "is not a safetensors file, or is cut off"
        try:
            header = json.loads(file.read(length))
            ends = [
                int(tensor["data_offsets"][1])
                for name, tensor in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return "does not have the header of a safetensors file"
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        return f"has {size:,} bytes, but its header says {expected:,}"
    return None
