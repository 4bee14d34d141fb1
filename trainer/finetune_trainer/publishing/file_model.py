"""A model that computes from its files: each module has its weights only while it computes.

Rank 0 holds the weights of one module at a time, in host memory or on its GPU, so that a model that
does not fit into either can be checked after it was written.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.engine.configuration import read_config
from finetune_trainer.engine.deepspeed import Precision
from finetune_trainer.publishing import layout
from finetune_trainer.publishing.base_weights import BaseWeights
from finetune_trainer.publishing.percent import Percent

if TYPE_CHECKING:
    from torch import Tensor, device
    from torch.nn import Module


class FileModel:
    """The model in a folder, in the precision of the training."""

    def __init__(self, folder: Path, model: Any, precision: Precision) -> None:
        """model: of the same architecture; it has the buffers that no file contains."""
        import torch
        from transformers import AutoModelForCausalLM

        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        config = read_config(folder)
        with torch.device("meta"):
            self._model: Any = AutoModelForCausalLM.from_config(
                config, dtype=self._dtype, attn_implementation="eager", trust_remote_code=False
            )
        self._model.eval()
        self._weights = BaseWeights(folder, self._model)
        self._names = layout.tied_names(self._model)
        self._buffers = dict(model.named_buffers(remove_duplicate=False))

    def last_logits(self, rows: Sequence[list[int]], place: "device", percent: Percent) -> "Tensor":
        """The logits of the token after each row, [rows, vocabulary], in fp32 in host memory.

        Raises ValueError if the model uses weights outside of the modules that own them.
        """
        import torch

        problem: RuntimeError | None = None
        for has_whole_layers in (False, True):
            # tied weights are read at each of their places
            parameters = self._model.named_parameters(remove_duplicate=False)
            percent.of(sum(parameter.nbytes for _, parameter in parameters))
            try:
                with self._loading(place, percent, has_whole_layers=has_whole_layers):
                    found = self._compute(rows, place)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # torch does not compute with a missing weight
                problem = error
                continue
            if not found.is_meta:
                return found.float().cpu()
        raise ValueError("its weights are used outside of their layers") from problem

    def _compute(self, rows: Sequence[list[int]], place: "device") -> "Tensor":
        """One pass over all rows. Padding is on the right, where causal attention ignores it."""
        import torch

        width = max(map(len, rows))
        inputs = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=place)
        ends = [len(row) - 1 for row in rows]
        settings: dict[str, Any] = {}
        kept = list(range(width))
        if "logits_to_keep" in signature(self._model.forward).parameters:
            kept = sorted(set(ends))
            settings["logits_to_keep"] = torch.tensor(kept, device=place)
        with torch.no_grad():
            logits = self._model(
                input_ids=inputs,
                position_ids=torch.arange(width, device=place).expand_as(inputs),
                use_cache=False,
                **settings,
            ).logits
        return torch.stack([logits[row, kept.index(end)] for row, end in enumerate(ends)])

    @contextmanager
    def _loading(
        self, place: "device", percent: Percent, *, has_whole_layers: bool
    ) -> Iterator[None]:
        """Let the modules, or the layers as a whole, load their weights when they are called."""
        from torch.nn import ModuleList

        buffers = self._place_buffers(place)
        whole: list[str] = []  # the paths of layers
        hooks = []
        for path, module in self._model.named_modules():
            if any(path.startswith(f"{layer}.") for layer in whole):
                continue
            owners = [(path, module)]
            parent = self._model.get_submodule(path.rpartition(".")[0])
            if has_whole_layers and isinstance(parent, ModuleList):
                whole.append(path)
                owners = [(f"{path}.{name}".rstrip("."), it) for name, it in module.named_modules()]
            load, release = self._hooks(owners, place, percent)
            hooks.append(module.register_forward_pre_hook(load))
            hooks.append(module.register_forward_hook(release, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for owner, name, buffer in buffers:
                owner._buffers[name] = buffer

    def _hooks(
        self, owners: list[tuple[str, "Module"]], place: "device", percent: Percent
    ) -> tuple[Callable[..., None], Callable[..., None]]:
        """The functions that PyTorch calls before and after a module computes."""
        import torch

        empty = [
            (module, name, f"{path}.{name}", parameter)
            for path, module in owners
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]

        def load(*_: Any) -> None:
            for module, name, full, _parameter in empty:
                weight = self._read(full).to(place)
                percent.add(weight.nbytes)
                module._parameters[name] = torch.nn.Parameter(weight, requires_grad=False)

        def release(*_: Any) -> None:
            for module, name, _full, parameter in empty:
                module._parameters[name] = parameter

        return load, release

    def _read(self, name: str) -> "Tensor":
        for known in self._names.get(name, [name]):
            if known in self._weights:
                return self._weights.read(known, self._dtype)
        raise ValueError(f"the weight {name} is not in the files")

    def _place_buffers(self, place: "device") -> list[tuple[Any, str, "Tensor"]]:
        """Put all buffers on the device. Returns those without memory, to put them back."""
        found = []
        for path, module in self._model.named_modules():
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                full = f"{path}.{name}".lstrip(".")
                value = self._read(full) if full in self._weights else self._buffers[full]
                module._buffers[name] = value.to(place)
                found.append((module, name, buffer))
        return found
