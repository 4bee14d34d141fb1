"""Reads the weights of the base model one by one from its memory-mapped files.

The names, and the conversions of weights whose layout differs in the files, are transformers'.
"""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, dtype

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass
class _Conversion:
    """Tensors of the files that become weights of the model together."""

    first: str  # the name that the converter builds its results' names from
    sources: list[tuple[str, str]] = field(default_factory=list)  # name in the files, pattern
    converter: Any = None  # of transformers; None: the tensor only has another name, if any


class BaseWeights:
    """The weights in the folder of a base model, by their names in the model."""

    def __init__(self, folder: Path, model: Any) -> None:
        """model: a skeleton of the base model."""
        from safetensors import safe_open

        self._model = model
        self._slices: dict[str, Any] = {}
        for name in _files(folder):
            file: Any = safe_open(folder / name, "pt")
            self._slices |= {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        self._conversions = self._plan()
        self._converted: dict[str, Tensor] = {}  # results that were not asked for yet

    def __contains__(self, name: str) -> bool:
        return name in self._conversions

    def read(self, name: str, precision: "dtype") -> "Tensor":
        """A copy of the weight; one of floating point has the given type."""
        if name in self._converted:
            return self._converted.pop(name)
        conversion = self._conversions[name]
        if conversion.converter is None:
            return self._tensor(conversion.sources[0][0], precision)
        tensors = {key: self._tensor(key, precision) for key, _ in conversion.sources}
        self._converted |= self._convert(conversion, tensors)
        return self._converted.pop(name)

    def _tensor(self, key: str, precision: "dtype") -> "Tensor":
        import torch

        tensor: Tensor = self._slices[key][...]
        kind = precision if tensor.is_floating_point() else tensor.dtype
        return torch.empty_like(tensor, dtype=kind).copy_(tensor)

    def _convert(
        self, conversion: _Conversion, tensors: dict[str, "Tensor"]
    ) -> dict[str, "Tensor"]:
        converter = copy.deepcopy(conversion.converter)
        for key, pattern in conversion.sources:
            # the converter's only reference, so that it can free the tensor
            converter.add_tensor(conversion.first, key, pattern, tensors.pop(key))
        config = self._model.config
        found = converter.convert(conversion.first, model=self._model, config=config)
        return {name: it[0] if isinstance(it, list) else it for name, it in found.items()}

    def _plan(self) -> dict[str, _Conversion]:
        """The conversion that makes each weight of the model.

        The same steps as `transformers.core_model_loading.convert_and_load_state_dict_in_model`,
        which loads all weights at once.
        """
        import torch
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )

        known = self._model.state_dict()
        prefix = self._model.base_model_prefix
        transforms = get_model_conversion_mapping(self._model)
        renamings = [it for it in transforms if isinstance(it, WeightRenaming)]
        converters = [it for it in transforms if isinstance(it, WeightConverter)]
        by_pattern = {pattern: it for it in converters for pattern in it.source_patterns}
        firsts: dict[str, _Conversion] = {}
        for key in sorted(self._slices, key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, prefix, known)
            if name not in known and key in known:
                name, pattern = rename_source_key(key, [], [], prefix, known)
            if name in known:
                converter = by_pattern[pattern] if pattern is not None else None
                made = firsts.setdefault(name, _Conversion(name, converter=converter))
                made.sources.append((key, pattern or key))
        found = {}
        for first, conversion in firsts.items():
            if conversion.converter is None:
                found[first] = conversion
                continue
            shapes = {
                key: torch.empty(self._slices[key].get_shape(), device="meta")
                for key, _ in conversion.sources
            }
            found |= dict.fromkeys(self._convert(conversion, shapes), conversion)
        return found


def _files(folder: Path) -> list[str]:
    """The names of the files with weights, as transformers chooses them."""
    if (folder / SINGLE).is_file():
        return [SINGLE]
    names = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
    return sorted(Path(name).name for name in names)
