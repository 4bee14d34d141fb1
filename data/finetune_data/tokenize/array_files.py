"""Arrays that grow on disk, so that the tokens of only one batch are in memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from finetune_data.read.examples import PROMPT


class ArrayFile:
    """A one-dimensional .npy file that grows. It is readable once it is closed.

    NumPy pads the header, so that the shape can be updated in place.
    """

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._dtype = np.dtype(dtype)
        self._file: BinaryIO = path.open("wb")
        self._length = 0
        self._write_header()

    def append(self, values: npt.ArrayLike) -> None:
        """Values of shape (n,), cast to the file's type."""
        array = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(array.tobytes())
        self._length += len(array)

    def close(self) -> None:
        """Write the length into the header."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        npy.write_array_header_1_0(
            self._file,
            {
                "descr": npy.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self._length,),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


class SplitFiles:
    """The three arrays of a split while they are written."""

    def __init__(self, folder: Path, split: str) -> None:
        self.paths = [f"{split}.{name}.npy" for name in ("tokens", "roles", "offsets")]
        tokens, roles, offsets = (folder / path for path in self.paths)
        self._tokens = ArrayFile(tokens, np.int32)
        self._roles = ArrayFile(roles, np.uint8)
        self._offsets = ArrayFile(offsets, np.int64)
        self._offsets.append([0])
        self.examples = 0
        self.tokens = 0
        self.longest = 0
        self.highest = 0  # token
        self.prompt_tokens = 0

    def append(self, examples: Sequence[tuple[Sequence[int], bytes]]) -> None:
        """Append examples: the tokens of each, and a byte of roles per token."""
        lengths = np.fromiter((len(tokens) for tokens, _ in examples), np.int64, len(examples))
        flat = array("i")  # converts a list of integers three times as fast as NumPy
        for tokens, _ in examples:
            if isinstance(tokens, list):
                flat.fromlist(tokens)
            else:
                flat.extend(tokens)
        values = np.frombuffer(flat, np.int32) if flat else np.empty(0, np.int32)
        roles = np.frombuffer(b"".join(marks for _, marks in examples), np.uint8)
        self.append_arrays(values, roles, lengths)

    def append_arrays(
        self,
        values: npt.NDArray[np.int32],
        roles: npt.NDArray[np.uint8],
        lengths: npt.NDArray[np.int64],
    ) -> None:
        """Append examples end to end: their tokens and roles, and the length of each, (n,)."""
        self._tokens.append(values)
        self._roles.append(roles)
        self.highest = max(self.highest, int(values.max(initial=0)))
        self.prompt_tokens += int(np.count_nonzero(roles == PROMPT))
        self._offsets.append(self.tokens + np.cumsum(lengths))
        self.examples += len(lengths)
        self.tokens += int(lengths.sum())
        self.longest = max(self.longest, int(lengths.max(initial=0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._tokens, self._roles, self._offsets):
            file.__exit__(kind, error, trace)
