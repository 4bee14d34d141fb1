"""Counts the bytes of all live tensor storages on the GPU and on the host."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE, HOST, PINNED = "device", "host", "pinned"  # pinned memory is memory of the host, too


class LiveBytes(TorchDispatchMode):
    """Bytes by place, now and at most since `reset`. Storages with several tensors count once."""

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._seen: dict[int, tuple[weakref.ref[Any], int, str]] = {}
        self._is_pinning = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # half of all operations; the mode below takes longer
        if func is torch.ops.aten._local_scalar_dense.default:
            # DeepSpeed asks fake tensors for a value: a norm is 1, and nothing is infinite
            return int(args[0].dtype != torch.bool)
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return found

    def reset(self) -> None:
        """Start a new peak."""
        self.peak = Counter(self.now)

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        known = self._seen.get(id(tensor.untyped_storage()))
        return known is not None and known[2] == PINNED

    @contextmanager
    def pinning(self) -> Iterator[None]:
        """Count new host tensors as pinned."""
        self._is_pinning = True
        try:
            yield
        finally:
            self._is_pinning = False

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen and self._seen[key][0]() is storage:
            return
        place = DEVICE
        if tensor.device.type in {"cpu", "meta"}:
            place = PINNED if self._is_pinning else HOST
        size = 0 if tensor.device.type == "meta" else storage.nbytes()

        def gone(_: Any) -> None:
            del self._seen[key]
            self.now[place] -= size

        self._seen[key] = (weakref.ref(storage, gone), size, place)
        self.now[place] += size
        self.peak[place] = max(self.peak[place], self.now[place])
