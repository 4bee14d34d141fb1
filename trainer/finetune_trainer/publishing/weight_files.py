"""Writes safetensors files tensor by tensor, in any order, with the bytes that the library writes.

The header needs only types and shapes, so that every tensor has its place before it exists.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from finetune_trainer.engine.safetensors_header import TensorType, encode, in_file_order

if TYPE_CHECKING:
    from torch import Tensor

METADATA = {"format": "pt"}
WEIGHTS = "model{suffix}.safetensors"
INDEX = "model.safetensors.index.json"


class TensorFile:
    """One safetensors file that is being written."""

    def __init__(self, path: Path, tensors: Mapping[str, "Tensor"]) -> None:
        """tensors: types and shapes, which need no memory."""
        kinds = in_file_order({name: TensorType.of(tensor) for name, tensor in tensors.items()})
        header, self._starts = encode(kinds, METADATA)
        self._missing = dict(kinds)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._file.write(header)
        self._file.truncate(len(header) + sum(kind.size for kind in kinds.values()))

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._missing:
            raise ValueError(f"{next(iter(self._missing))} was not written to {self._file.name}")

    def write(self, name: str, tensor: "Tensor") -> int:
        """Write one tensor to its place, once. Returns its bytes."""
        import torch

        kind = self._missing.pop(name)
        if TensorType.of(tensor) != kind:
            raise ValueError(f"{name} is {TensorType.of(tensor)} instead of {kind}")
        flat = tensor.detach().cpu().contiguous().flatten()
        if flat.numel():
            self._file.seek(self._starts[name])
            self._file.write(memoryview(flat.view(torch.uint8).numpy()))
        return kind.size


class ModelFiles:
    """The weights of a model in files of at most `shard_size`, with an index if there are several.

    The files are those of `save_pretrained`, whose rules are in huggingface_hub: tensors fill the
    files in order, and tensors that are views of the same memory are in the same file.
    """

    def __init__(
        self, folder: Path, tensors: Mapping[str, "Tensor"], parameters: int, shard_size: str
    ) -> None:
        """tensors: types and shapes in order. parameters: of the model, for the index."""
        from huggingface_hub import split_state_dict_into_shards_factory

        self._folder = folder
        self._split = split_state_dict_into_shards_factory(
            dict(tensors),
            get_storage_size=lambda tensor: tensor.untyped_storage().nbytes(),
            get_storage_id=lambda tensor: tensor.untyped_storage()._cdata,
            filename_pattern=WEIGHTS,
            max_shard_size=shard_size,
        )
        self._parameters = parameters
        self._files = {
            name: TensorFile(folder / name, {key: tensors[key] for key in keys})
            for name, keys in self._split.filename_to_tensors.items()
        }

    def write(self, name: str, tensor: "Tensor") -> int:
        """Write one tensor to its place, once. Returns its bytes."""
        return self._files[self._split.tensor_to_filename[name]].write(name, tensor)

    def close(self) -> None:
        """Write the index. Raises ValueError if a tensor was not written."""
        for file in self._files.values():
            file.__exit__(None, None, None)
        if not self._split.is_sharded:
            return
        index = {
            "metadata": {"total_parameters": self._parameters, **self._split.metadata},
            "weight_map": self._split.tensor_to_filename,
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (self._folder / INDEX).write_text(text, encoding="utf-8")
