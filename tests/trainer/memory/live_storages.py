"""Counts the bytes of the tensor storages that are alive, for each device type."""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):  # type: ignore[misc]
    """While active, counts each storage that an operation returns, once, until it is freed.

    Views share a storage, and so does `.cpu()` of a tensor on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, tuple[Any, str, int]] = {}
        self.now: dict[str, int] = defaultdict(int)  # bytes by device type
        self.peak: dict[str, int] = defaultdict(int)
        self.peak_operation: dict[str, str] = {}

    def track(self, *modules: torch.nn.Module) -> None:
        """Count the parameters and buffers of the modules."""
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                self._add(tensor, "track")

    def reset_peak(self) -> None:
        self.peak = defaultdict(int, self.now)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor, str(function))
        return found

    def _add(self, tensor: torch.Tensor, operation: str) -> None:
        storage = tensor.untyped_storage()
        key, size, device = id(storage), storage.nbytes(), tensor.device.type
        known = self._sizes.get(key)
        if known is not None and known[0]() is storage:
            self.now[device] += size - known[2]  # resized in place
            self._sizes[key] = (known[0], device, size)
        else:

            def forget(_: Any, key: int = key) -> None:
                _, device, size = self._sizes.pop(key)
                self.now[device] -= size

            self._sizes[key] = (weakref.ref(storage, forget), device, size)
            self.now[device] += size
        if self.now[device] > self.peak[device]:
            self.peak[device] = self.now[device]
            self.peak_operation[device] = operation
