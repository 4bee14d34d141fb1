"""Whether a safetensors file is whole, from its header alone.

Format: 8 bytes little-endian header length, a JSON header of tensors with their byte ranges, the
bytes. A download or an upload that ended early shows as ranges beyond the file's end.
"""

import json
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it


def find_truncation(path: Path) -> str | None:
    """What is wrong with the file, in words; None when it is whole."""
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
            return "has a header that is not that of a safetensors file"
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        return f"has {size:,} bytes where its header says {expected:,}"
    return None
