"""A GPU that does not exist: torch computes shapes only, and DeepSpeed uses it as accelerator.

Tensors are fake (`FakeTensorMode`), so that a model of any size needs no memory and no time. The
GPU is torch's "privateuseone" device with torch's own Python backend, so that device and host are
different devices, `.cpu()` is a copy, and the autograd engine accepts the device. The process group
is torch's "fake" one: a collective of any number of ranks does nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from finetune_trainer.engine import attention, head
from tests.trainer.virtual_gpu.live_bytes import LiveBytes

GPU = "gpu"  # torch's name of the device
MEMORY = 2**50  # DeepSpeed flattens parameters on the host if the GPU has too little


class Fakes(FakeTensorMode):  # type: ignore[misc]
    """Fake tensors of a device that has no kernels, not even for the values of `torch.tensor`."""

    avoid_device_init = True


class Backend(_DummyBackendModule):  # type: ignore[misc]
    """`torch.gpu`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]  # without it, activation checkpointing fails


class VirtualGpu(CPU_Accelerator):
    """DeepSpeed's view of the GPU. Pinned memory is counted separately."""

    def __init__(self, live: LiveBytes) -> None:
        super().__init__()
        self._name = GPU
        self._live = live

    def device_name(self, device_index: Any = None) -> str:
        return GPU if device_index is None else f"{GPU}:{device_index}"

    def device(self, device_index: Any = None) -> torch.device:
        return torch.device(self.device_name(device_index or 0))

    def current_device(self) -> int:
        return 0

    def current_device_name(self) -> str:
        return f"{GPU}:0"

    def device_count(self) -> int:
        return 1

    def available_memory(self, device_index: Any = None) -> int:
        return MEMORY

    def on_accelerator(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == GPU

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return self._live.is_pinned(tensor)

    def pin_memory(
        self, tensor: torch.Tensor, make_copy: bool = True, match_shape: bool = True
    ) -> Any:
        """A copy in other memory, as on a real GPU."""
        with self._live.pinning():
            return torch.empty_like(tensor, device="cpu").copy_(tensor)

    def _torch_empty_pinned(self, tensor: torch.Tensor, shape: Any) -> Any:
        with self._live.pinning():
            return tensor.new_empty(shape, device="cpu")

    @property
    def FloatTensor(self) -> Any:  # noqa: N802 - DeepSpeed's name
        return partial(torch.tensor, dtype=torch.float32, device=GPU)

    @property
    def ByteTensor(self) -> Any:  # noqa: N802 - DeepSpeed's name
        return partial(torch.tensor, dtype=torch.uint8, device=GPU)


def apply(module: torch.nn.Module, function: Any, recurse: bool = True) -> torch.nn.Module:
    """What `Module._apply` does for tensors that are not fake: it replaces their data."""
    del recurse
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            parameter.data = function(parameter.data)
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, function(buffer))
    return module


@contextmanager
def virtual_gpu(ranks: int) -> Iterator[LiveBytes]:
    """Everything inside runs as rank 0 of `ranks`, on the virtual GPU. Once per process."""
    import deepspeed
    from deepspeed.accelerator import set_accelerator
    from deepspeed.runtime.zero import partitioned_param_coordinator

    deepspeed.logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__ = {}
    _setup_privateuseone_for_python_backend(rename=GPU, backend_module=Backend())
    head.CHUNK_BYTES[GPU] = head.CHUNK_BYTES["cuda"]
    live = LiveBytes()
    set_accelerator(VirtualGpu(live))
    torch.distributed.init_process_group(
        f"cpu:fake,{GPU}:fake", rank=0, world_size=ranks, store=FakeStore()
    )
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    # it compares the values of tensors, which fake ones do not have
    partitioned_param_coordinator.assert_ints_same_as_other_ranks = lambda ints: None
    with (
        patch.object(torch.nn.Module, "_apply", apply),
        patch.object(attention, "has_kernel", lambda query, dropout: dropout == 0),
        torch.autograd.set_multithreading_enabled(False),  # modes belong to this thread
        Fakes(allow_non_fake_inputs=True),
        live,
    ):
        yield live
