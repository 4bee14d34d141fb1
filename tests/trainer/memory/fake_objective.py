"""The trainer's `Objective` with fake tensors: real shapes, no memory, and the kernels of a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.gpu.roofline import norm_operation
from finetune_api.tasks import MethodRef
from finetune_data.memory.activations import CHUNK_BYTES
from finetune_trainer.engine import attention, fused_norms, memory_budget
from finetune_trainer.engine.lora import add_adapter
from finetune_trainer.engine.objective import ComputePath, Objective
from tests.trainer.memory.live_storages import LiveStorages

LENGTH = 512  # tokens of an example


@contextmanager
def gpu_kernels() -> Iterator[None]:
    """Let fake CPU tensors take the path of CUDA tensors.

    Fake CUDA tensors have no backward pass on a machine without a GPU. The attention is the same
    operation for both; dropout keeps a mask of one byte on CUDA; a chunk of logits is larger there.
    A fused norm is one operation that keeps its input and a number per row.
    """
    patch = torch.nn.functional.dropout, attention.has_kernel, CHUNK_BYTES["cpu"]
    norm, fused_norms._rms_norm = fused_norms._rms_norm, norm_operation()

    def dropout(
        input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not training or p == 0:
            return input
        found: torch.Tensor = torch.native_dropout(input, p, True)[0]
        return found

    def has_kernel(query: torch.Tensor, dropout: float) -> bool:
        return dropout == 0 and query.shape[-1] <= attention.WIDEST_HEAD

    torch.nn.functional.dropout, attention.has_kernel = dropout, has_kernel
    CHUNK_BYTES["cpu"] = CHUNK_BYTES["cuda"]
    try:
        yield
    finally:
        torch.nn.functional.dropout, attention.has_kernel, CHUNK_BYTES["cpu"] = patch
        fused_norms._rms_norm = norm


def count(
    config: Any,
    method: MethodRef,
    *,
    tokens: int,
    checkpointed: int,
    rows: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    path: ComputePath | None = None,
) -> int:
    """Peak bytes of a forward and backward pass, without the weights and all their gradients.

    checkpointed: the number of layers that are checkpointed. rows: 0 for examples that share a row.
    """
    from transformers import AutoModelForCausalLM

    attention.register()
    path = path or ComputePath(is_chunked=True, is_packed=not rows)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if method.type == "lora":
            model = add_adapter(model, method, 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _materialize(model, dtype)
        model.train()
        objective = Objective(model)
        objective.choose(path)
        if checkpointed:
            memory_budget.enable_checkpointing(model, checkpointed)
        live = LiveStorages()
        with live:
            live.track(objective)
            before = live.now["cpu"]
            live.reset_peak()
            objective(*_batch(tokens, rows))[0].backward()
        return live.peak["cpu"] - before


def _materialize(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Replace meta tensors by fake CPU tensors, and free each gradient as soon as it is complete.

    DeepSpeed does so, too: it adds the gradient to its own.
    """
    done: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is None:
                continue
            if id(old) not in done:
                fake = torch.empty(old.shape, dtype=dtype)
                new = done[id(old)] = torch.nn.Parameter(fake, requires_grad=old.requires_grad)
                if new.requires_grad:
                    new.register_post_accumulate_grad_hook(_free_gradient)
            module._parameters[name] = done[id(old)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _free_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _batch(tokens: int, rows: int) -> tuple[Any, ...]:
    shape = (rows, tokens // rows) if rows else (1, tokens)
    packing: dict[str, Any] = {}
    if not rows:
        bounds = (*range(0, tokens, LENGTH), tokens)
        starts = torch.empty(len(bounds), dtype=torch.int32)
        packing = {"bounds": bounds, "starts": starts}
    integers = [torch.empty(shape, dtype=torch.int64) for _ in range(2)]
    flat = [torch.empty(tokens, dtype=torch.int64) for _ in range(2)]
    return (*integers, *flat, torch.empty(tokens, dtype=torch.float64), packing)
