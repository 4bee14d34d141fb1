"""Packed attention against float64, and the ceilings of the card.

The reference attends in float64, one example at a time. A GPU must run torch's variable-length
kernel. The ceilings are the rates of a large matrix product, of a copy, and of that kernel.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.gpu.device import Device, KernelCalls
from bench.gpu.results import Measurement

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS = (1, 7, 128, 513)
HEAD_SIZES = (64, 128, 256)
HEADS, GROUPS = 8, 2  # of queries, and of keys and values
MOST = "<= 0.01"  # relative distance: inputs are the same bf16 values, and results are rounded
FORWARD_FLOPS = 2  # per query, key, and unit of width, of one causal product; there are two


def measure(device: Device) -> Iterator[Measurement]:
    from finetune_trainer.engine import attention

    yield from ceilings(device)
    calls = KernelCalls()
    with calls.watch():
        for size in HEAD_SIZES:
            yield from compare(device, attention.packed_attention, size)
    print(f"  attention: {calls.describe()}")
    if not device.is_rehearsal and not calls.count:
        raise RuntimeError("packed attention never called varlen_attn on this GPU")


def compare(device: Device, attend: Callable[..., Any], size: int) -> Iterator[Measurement]:
    """The distances of the output and of the three gradients, and whether a repetition is equal."""
    import torch

    torch.manual_seed(size)
    total = sum(LENGTHS)
    bounds = (0, *torch.tensor(LENGTHS).cumsum(0).tolist())
    starts = torch.tensor(bounds, dtype=torch.int32, device=device.kind)

    def random(heads: int) -> Tensor:
        return torch.randn(1, heads, total, size, device=device.kind, dtype=torch.bfloat16)

    inputs = [random(HEADS), random(GROUPS), random(GROUPS)]
    upward = random(HEADS).transpose(1, 2)

    def packed() -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        found = attend(None, *leaves, None, bounds=bounds, starts=starts)[0]
        return [found, *torch.autograd.grad(found, leaves, upward)]

    first, second = packed(), packed()
    expected = reference(inputs, upward, bounds)
    for name, mine, again, right in zip(
        ("output", "dq", "dk", "dv"), first, second, expected, strict=True
    ):
        distance = float((mine.detach().double() - right.detach()).norm() / right.detach().norm())
        details = {"is_repeatable": bool(torch.equal(mine, again))}
        yield Measurement(f"{name}, head size {size}", distance, "relative", MOST, details)


def reference(inputs: list[Tensor], upward: Tensor, bounds: tuple[int, ...]) -> list[Tensor]:
    """The output and the gradients in float64, by plain matrix products."""
    import torch

    leaves = [tensor.double().requires_grad_() for tensor in inputs]
    query, key, value = leaves
    key, value = (part.repeat_interleave(HEADS // GROUPS, 1) for part in (key, value))
    parts = []
    for begin, end in pairwise(bounds):
        q, k, v = (part[:, :, begin:end] for part in (query, key, value))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        parts.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v)
    found = torch.cat(parts, 2).transpose(1, 2)
    return [found, *torch.autograd.grad(found, leaves, upward.double())]


def ceilings(device: Device) -> Iterator[Measurement]:
    """What the card reaches without this project's code; `limits` uses these rates."""
    import torch

    print(f"  varlen_attn{signature()}")
    side = device.pick(8192, 128)
    left, right = (
        torch.randn(side, side, device=device.kind, dtype=torch.bfloat16) for _ in range(2)
    )
    seconds = fastest(device, lambda: left @ right)
    yield Measurement("product of bf16 matrices", 2 * side**3 / seconds / 1e12, "TFLOP/s")
    source = torch.empty(device.pick(2**30, 2**16), device=device.kind, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    seconds = fastest(device, lambda: target.copy_(source))
    yield Measurement("copy", 2 * source.nbytes / seconds / 1e12, "TB/s")
    seconds, flops = attention_pass(device)
    yield Measurement("attention, forward and backward", flops / seconds / 1e12, "TFLOP/s")


def attention_pass(device: Device) -> tuple[float, float]:
    """Seconds and FLOPs of a forward and backward pass over a row of 2,048-token examples."""
    import torch

    from finetune_trainer.engine.attention import packed_attention

    length, count, size = device.pick((2048, 8, 128), (32, 2, 16))
    bounds = tuple(range(0, length * count + 1, length))
    starts = torch.tensor(bounds, dtype=torch.int32, device=device.kind)
    heads = device.pick(32, 4)

    def random() -> Tensor:
        shape = (1, heads, length * count, size)
        return torch.randn(shape, device=device.kind, dtype=torch.bfloat16, requires_grad=True)

    leaves = query, key, value = random(), random(), random()
    upward = torch.ones(1, length * count, heads, size, device=device.kind, dtype=torch.bfloat16)

    def both() -> None:
        found = packed_attention(None, query, key, value, None, bounds=bounds, starts=starts)[0]
        torch.autograd.grad(found, leaves, upward)

    forward = 2 * FORWARD_FLOPS * heads * size * count * length * (length + 1) / 2
    return fastest(device, both), 3.5 * forward  # the backward pass has five products


def fastest(device: Device, run: Callable[[], object], times: int = 5) -> float:
    """The least seconds of a few runs, after one that does not count."""
    run()
    found = []
    for _ in range(device.pick(times, 1)):
        device.synchronize()
        begin = time.perf_counter()
        run()
        device.synchronize()
        found.append(time.perf_counter() - begin)
    return min(found)


def signature() -> str:
    """The parameters of torch's variable-length attention, which differ between versions."""
    from torch.nn.attention.varlen import varlen_attn

    names = inspect.signature(varlen_attn).parameters
    return f"({', '.join(names)})"
