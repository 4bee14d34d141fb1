"""The header of a safetensors file: the names, types, shapes, and byte ranges of its tensors."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

LENGTH_BYTES = 8  # of the number in front of the header; the data starts at a multiple of it
MOST_BYTES = 100_000_000  # of a header; the limit of the library
METADATA = "__metadata__"

# The names of types in a file and in torch, and their bits. The library orders the tensors of a
# file by type, from the last one here to the first, and then by name.
TYPES = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "I16": ("int16", 16),
    "U16": ("uint16", 16),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "I32": ("int32", 32),
    "U32": ("uint32", 32),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
    "I64": ("int64", 64),
    "U64": ("uint64", 64),
}
_RANK = {name: rank for rank, name in enumerate(TYPES)}
_NAMES = {torch_name: name for name, (torch_name, _) in TYPES.items()}


@dataclass(frozen=True)
class TensorType:
    """The type and the shape of a tensor."""

    dtype: str  # a key of TYPES
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: object) -> "TensorType":
        """The type of a tensor of torch. Raises ValueError if no safetensors file can hold it."""
        name = str(getattr(tensor, "dtype", type(tensor))).removeprefix("torch.")
        if name not in _NAMES:
            raise ValueError(f"a safetensors file cannot hold a tensor of type {name}")
        return cls(_NAMES[name], tuple(getattr(tensor, "shape", ())))

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * TYPES[self.dtype][1] // 8


def in_file_order(tensors: Mapping[str, TensorType]) -> dict[str, TensorType]:
    """The tensors in the order in which the library writes them."""
    order = sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name.encode()))
    return {name: tensors[name] for name in order}


def encode(
    tensors: Mapping[str, TensorType], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int]]:
    """The header of a file with these tensors in this order, and where each starts in the file."""
    entries: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    starts, end = {}, 0
    for name, tensor in tensors.items():
        starts[name], end = end, end + tensor.size
        entries[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    header = len(text).to_bytes(LENGTH_BYTES, "little") + text
    return header, {name: len(header) + start for name, start in starts.items()}


def length(start: bytes, file_size: int) -> int:
    """The bytes of the header, after the first 8 of the file. Raises ValueError for nonsense."""
    found = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or found > min(file_size - LENGTH_BYTES, MOST_BYTES):
        raise ValueError(f"the file starts with {start[:LENGTH_BYTES].hex()}, not with a length")
    return found


def decode(text: bytes) -> dict[str, TensorType]:
    """The tensors of a header without its first 8 bytes. Raises ValueError for nonsense."""
    try:
        entries: Iterable[tuple[str, dict[str, list[int]]]] = json.loads(text).items()
        return {
            name: TensorType(str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
            for name, entry in entries
            if name != METADATA
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the header of the safetensors file is not readable: {error}") from error
