"""Adds a LoRA adapter to the weights of the base model, one weight at a time, with peft's code."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.publishing.base_weights import BaseWeights

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER = "default"  # peft's name of the only adapter


class MergedWeights:
    """The weights of the base model with the adapter's products, in fp32."""

    def __init__(self, base: BaseWeights, model: Any, config: Any, adapter: Path) -> None:
        """model: a skeleton of the base model, which gets the adapter's layers.

        config: the adapter's, of peft. adapter: its file.
        """
        from peft import get_peft_model
        from peft.tuners.lora import LoraLayer
        from safetensors import safe_open

        self._base = base
        self._file: Any = safe_open(adapter, "pt")
        modules = {module: name for name, module in model.named_modules()}
        adapted: Any = get_peft_model(
            model, config, autocast_adapter_dtype=False, low_cpu_mem_usage=True
        )
        # the adapted layer of each weight, and the start of its names in the adapter's file
        self._layers: dict[str, tuple[Any, str]] = {}
        for start, layer in adapted.named_modules():
            if isinstance(layer, LoraLayer):
                owner = modules[layer.get_base_layer()]
                self._layers[f"{owner}.{_parameter_name(layer)}"] = layer, start

    def __contains__(self, name: str) -> bool:
        return name in self._base

    def read(self, name: str) -> "Tensor":
        """One weight of the merged model."""
        import torch

        weight = self._base.read(name, torch.float32)
        if name not in self._layers:
            return weight
        layer, start = self._layers[name]
        factors = [
            (linear, self._file.get_tensor(f"{start}.{kind}.weight"))
            for kind, linear in (
                ("lora_A", layer.lora_A[ADAPTER]),
                ("lora_B", layer.lora_B[ADAPTER]),
            )
        ]
        targets = [(layer.get_base_layer(), _parameter_name(layer), weight)]
        targets += [(linear, "weight", factor) for linear, factor in factors]
        empty = [getattr(module, parameter) for module, parameter, _ in targets]
        for module, parameter, value in targets:
            setattr(module, parameter, torch.nn.Parameter(value, requires_grad=False))
        layer.merge(adapter_names=[ADAPTER])
        merged: Tensor = getattr(layer.get_base_layer(), _parameter_name(layer)).data
        for (module, parameter, _), value in zip(targets, empty, strict=True):
            setattr(module, parameter, value)
        return merged


def _parameter_name(layer: Any) -> str:
    """The name of the adapted parameter in its module."""
    return str(getattr(layer, "parameter_name", "weight"))
