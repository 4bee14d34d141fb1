"""Losses of every compute path against fp32, and reduced gradients against float64.

The losses are those of one model with one set of examples. The gradient of each ZeRO stage is
compared twice: with the float64 sum of the bf16 gradients of the same micro-batches, from which
DeepSpeed may not deviate, and with the gradient of the model in float64, from which bf16 deviates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from bench.gpu.device import Device, KernelCalls
from bench.gpu.models import random_model, sizes
from bench.gpu.results import Measurement
from bench.gpu.training import build_engine
from bench.trainer import workload
from finetune_api.tasks import Offload

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from finetune_trainer.batching.microbatch import MicroBatch
    from finetune_trainer.engine.objective import ComputePath

MODEL = "100M"
TOKENS = 4096  # of the examples of the losses, and of each micro-batch of the gradients
MICRO_BATCHES = 3
MODES: tuple[tuple[int, Literal["bf16", "fp32"], Offload], ...] = (
    (0, "fp32", "none"),
    (1, "bf16", "none"),
    (2, "bf16", "none"),
    (3, "bf16", "none"),
    (3, "bf16", "optimizer"),
)
# Relative distances. Sums in fp32 are off by 1e-7, and one sum in bf16 by 2e-3. The gradient of a
# whole model in bf16 is off by a few percent.
SUM_OFF = {"fp32": "<= 0.00001", "bf16": "<= 0.00001"}
MODEL_OFF = {"fp32": "<= 0.0001", "bf16": "<= 0.05"}
LOSS_OFF = {"fp32": "<= 0.0001", "bf16": "<= 0.05"}  # mean absolute difference per token


def measure(device: Device) -> Iterator[Measurement]:
    import torch

    # FlashAttention's backward pass otherwise adds in any order, also in two equal passes.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield from losses(device)
        for stage, precision, offload in MODES:
            yield from gradients(device, stage, precision, offload)
            device.free()
    finally:
        torch.use_deterministic_algorithms(False)


def losses(device: Device) -> Iterator[Measurement]:
    """The mean absolute difference of the losses per token, on each path and in each precision."""
    from finetune_trainer.engine import attention
    from finetune_trainer.engine.objective import ComputePath, Objective

    attention.register()
    paths = {
        "padded, whole": ComputePath(),
        "padded, chunked": ComputePath(is_chunked=True),
        "packed, whole": ComputePath(is_packed=True),
        "packed, chunked": ComputePath(is_chunked=True, is_packed=True),
        "packed, chunked, fused norms": ComputePath(True, True, is_fused=True),
    }
    calls = KernelCalls()
    expected = None
    for precision in ("fp32", "bf16"):
        objective = Objective(random_model(device, MODEL, "fp32").to(dtype_of(precision)))
        found = {}
        for name, path in paths.items():
            with calls.watch():
                found[name] = token_losses(device, objective, path)
            if expected is None:
                expected = found[name]
            difference = float((found[name] - expected).abs().mean())
            if (precision, name) == ("fp32", "padded, whole"):
                continue
            title = f"losses in {precision}, {name}, from fp32"
            yield Measurement(title, difference, "per token", LOSS_OFF[precision])
        padded = (found["packed, chunked"] - found["padded, whole"]).abs().mean()
        title = f"losses in {precision}, packed, chunked, from padded, whole"
        yield Measurement(title, float(padded), "per token", LOSS_OFF[precision])
    if not device.is_rehearsal and not calls.count:
        raise RuntimeError("the packed path in bf16 never called varlen_attn on this GPU")


def token_losses(device: Device, objective: Any, path: ComputePath) -> Tensor:
    import torch

    from finetune_trainer.engine.objective import arguments

    objective.choose(path)
    batch = batches(device, objective, 1, packed=path.is_packed)[0]
    with torch.no_grad():
        found: Tensor = objective(*arguments(batch, 0.1, torch.device(device.kind)))[1]
    return found.double()


def batches(device: Device, objective: Any, count: int, *, packed: bool) -> list[MicroBatch]:
    """Micro-batches of different examples."""
    from finetune_trainer.batching.microbatch import assemble

    lengths = sizes(device, None, count * TOKENS)
    split = workload.examples(lengths, int(objective.config.vocab_size))
    each = len(lengths) // count
    parts = [range(number * each, (number + 1) * each) for number in range(count)]
    return [assemble(split, part, packed=packed, prompts=True) for part in parts]


def gradients(
    device: Device, stage: int, precision: Literal["bf16", "fp32"], offload: Offload
) -> Iterator[Measurement]:
    """The two distances of the reduced gradient of a step."""
    engine = build_engine(device, MODEL, zero_stage=stage, offload=offload, precision=precision)
    made = batches(device, engine.objective, MICRO_BATCHES, packed=False)
    twin = random_model(device, MODEL, precision)
    sums = summed_gradients(device, twin, made)
    exact = summed_gradients(device, copy.deepcopy(twin).double(), made)
    for index, batch in enumerate(made):
        loss = engine.predict(batch, 0.1)[0]
        engine.backward(loss, is_last=index == len(made) - 1)
    actual = {name: engine.gradient(p).double() for name, p in engine.parameters()}
    engine.step(0.0)
    name = f"ZeRO {stage}, {precision}"
    name += f", {offload} on the host" if offload != "none" else ""
    yield Measurement(
        f"gradient, {name}, from the float64 sum of micro-batches",
        distance(actual, sums),
        "relative",
        SUM_OFF[precision],
    )
    yield Measurement(
        f"gradient, {name}, from a model in float64",
        distance(actual, exact),
        "relative",
        MODEL_OFF[precision],
    )


def summed_gradients(device: Device, model: Module, made: list[MicroBatch]) -> dict[str, Tensor]:
    """The float64 sums of the gradients of all micro-batches, without DeepSpeed."""
    import torch

    from finetune_trainer.engine.objective import Objective, arguments

    objective = Objective(model)
    sums = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in model.named_parameters()}
    for batch in made:
        objective(*arguments(batch, 0.1, torch.device(device.kind)))[0].backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad.double()
            parameter.grad = None
    return sums


def distance(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The norm of the difference of all gradients, relative to that of the expected ones."""
    differences = [(actual[n].view_as(e) - e).square().sum() for n, e in expected.items()]
    whole = [e.square().sum() for e in expected.values()]
    return float((sum(differences) / sum(whole)) ** 0.5)


def dtype_of(precision: str) -> Any:
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32
