"""Writes the model's weights for publishing, one weight at a time.

Rank 0 holds at most one weight, or the weights that transformers converts together, next to what
training needs. The files are those that `save_pretrained` would write.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.engine import lora
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.publishing import layout
from finetune_trainer.publishing.base_weights import BaseWeights
from finetune_trainer.publishing.merging import ADAPTER, MergedWeights
from finetune_trainer.publishing.percent import Percent
from finetune_trainer.publishing.weight_files import ModelFiles, TensorFile

if TYPE_CHECKING:
    from torch import Tensor, dtype

SHARD_SIZE = "5GB"


def write_model(
    engine: Engine,
    folder: Path,
    base: Path,
    progress: Callable[[str], None] = lambda detail: None,
    shard_size: str = SHARD_SIZE,
) -> None:
    """Write the weights in the training's precision, and the configuration. All ranks together.

    A LoRA run writes its adapter, and the adapter merged into the base model from its files in
    `base`. folder: empty or missing; only rank 0 writes it. progress: gets details to show.
    """
    import torch

    precision = torch.bfloat16 if engine.precision == "bf16" else torch.float32
    destination = _Destination(folder, shard_size, Percent("writing the model", progress))
    if not lora.is_adapted(engine.model):
        return _write_trained(engine, precision, destination)
    _write_adapter(engine, destination.adapter)
    if engine.coordinates.rank == 0:
        _write_merged(engine, precision, base, destination)
    return None


@dataclass(frozen=True)
class _Destination:
    """The folder of the published model."""

    folder: Path
    shard_size: str
    percent: Percent

    @property
    def adapter(self) -> Path:
        return self.folder / lora.FOLDER / lora.WEIGHTS


def _write_trained(engine: Engine, precision: "dtype", destination: _Destination) -> None:
    import torch

    model: Any = engine.model
    empty = layout.skeleton(model, precision)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    wanted: dict[str, Tensor] = {
        name: torch.empty_like(buffers[name], device="meta")
        if name in buffers
        else _in_precision(tensor, precision)
        for name, tensor in layout.saved_weights(empty).items()
    }
    conversions = layout.conversions(empty, wanted)
    writer = None
    if engine.coordinates.rank == 0:
        writer = _Writer(destination, empty, wanted, conversions)
    for conversion in conversions:
        weights = {}
        for name in conversion.sources:
            whole = buffers[name] if name in buffers else engine.read_weights(parameters[name])
            if writer is not None:
                weights[name] = whole.to(wanted[name].dtype).cpu()
            del whole
        if writer is not None:
            writer.write(conversion, weights)
    if writer is not None:
        writer.close()


def _write_merged(
    engine: Engine, precision: "dtype", base: Path, destination: _Destination
) -> None:
    adapted: Any = engine.model
    trained = adapted.get_base_model()
    empty = layout.skeleton(trained, precision)
    config = copy.deepcopy(adapted.peft_config[ADAPTER])
    merged = MergedWeights(
        BaseWeights(base, empty),
        layout.skeleton(trained, precision),
        config,
        destination.adapter,
    )
    buffers = dict(trained.named_buffers())
    wanted = {
        name: _in_precision(tensor, precision)
        for name, tensor in layout.saved_weights(empty).items()
    }
    names = layout.tied_names(empty)

    def read(name: str) -> "Tensor":
        for known in names.get(name, [name]):
            if known in merged:
                return merged.read(known)
        if name in buffers:  # computed when the model is built
            return buffers[name].cpu()
        raise ValueError(f"the weight {name} is not in the files of the base model")

    conversions = layout.conversions(empty, wanted)
    writer = _Writer(destination, empty, wanted, conversions)
    for conversion in conversions:
        # rounded after the sum, which is exact in fp32
        weights = {name: _in_precision(read(name), precision) for name in conversion.sources}
        writer.write(conversion, weights)
    writer.close()


class _Writer:
    """Writes the configuration at first, and then the tensors of each conversion."""

    def __init__(
        self,
        destination: _Destination,
        empty: Any,
        wanted: dict[str, "Tensor"],
        conversions: list[layout.Conversion],
    ) -> None:
        """wanted: the types and shapes of the weights before their conversion."""
        tensors: dict[str, Tensor] = {}
        for conversion in conversions:
            tensors |= conversion.convert({name: wanted[name] for name in conversion.sources})
        folder = destination.folder
        empty.save_pretrained(folder, state_dict={})  # only the configuration
        self._files = ModelFiles(folder, tensors, empty.num_parameters(), destination.shard_size)
        self._percent = destination.percent.of(sum(tensor.nbytes for tensor in tensors.values()))

    def write(self, conversion: layout.Conversion, weights: dict[str, "Tensor"]) -> None:
        found = conversion.convert(weights)
        weights.clear()
        for name in conversion.targets:
            self._percent.add(self._files.write(name, found.pop(name)))

    def close(self) -> None:
        self._files.close()


def _in_precision(tensor: "Tensor", precision: "dtype") -> "Tensor":
    return tensor.to(precision) if tensor.is_floating_point() else tensor


def _write_adapter(engine: Engine, path: Path) -> None:
    """Write the adapter in peft's layout, in fp32. All ranks together."""
    import torch

    parameters = dict(engine.parameters())
    shapes: dict[str, Tensor] = {
        name: torch.empty(engine.shape(parameter), device="meta")
        for name, parameter in parameters.items()
    }
    if engine.coordinates.rank != 0:
        for parameter in parameters.values():
            engine.read_weights(parameter)
        return
    published = lora.adapter_names(engine.model, shapes)
    lora.write_config(engine.model, path.parent)
    with TensorFile(path, {published[name]: shapes[name] for name in published}) as file:
        for name, parameter in parameters.items():
            file.write(published[name], engine.read_weights(parameter).to(torch.float32))
