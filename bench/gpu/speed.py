"""Tokens per second, model FLOPs utilization, and peak memory of the trainer's own loop.

Only real tokens count. MFU is (6N, for an adapter 4N, + 12·L·d·s)·tokens per second / the GPU's
dense bf16 peak (see `finetune_trainer.engine.mfu`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench.gpu.device import Device, KernelCalls, Memory
from bench.gpu.models import Sizes, configuration, sizes
from bench.gpu.results import Measurement
from bench.gpu.training import FULL, build_engine, local_task, lora, require_packed_path
from bench.trainer import workload
from bench.trainer.timed_run import TimedRun, timed_run
from finetune_api.tasks import Offload, TrainTask

if TYPE_CHECKING:
    from finetune_trainer.batching.order import Costs
    from finetune_trainer.engine.deepspeed import Engine

TOKENS = 65_536  # of a step, about; several micro-batches
WARM_UP = 2  # steps
SPEED = "tokens/s"


def measure(
    device: Device,
    *,
    model: str,
    lengths: Sequence[int | None],
    method: str = "full",
    dropout: float = 0.0,
    steps: int = 8,
    zero_stage: int = 0,
    offload: Offload = "none",
) -> Iterator[Measurement]:
    """lengths: of the examples, for each run; None: the lengths of Alpaca."""
    from finetune_trainer.engine.memory_budget import micro_batch_costs

    trained = lora(dropout) if method == "lora" else FULL
    memory = Memory(device)
    device.free()
    memory.reset()
    engine = build_engine(device, model, method=trained, zero_stage=zero_stage, offload=offload)
    steps = WARM_UP + device.pick(steps, 1)
    # more steps in an epoch than are run, because a checkpoint ends an epoch
    cases = {length: sizes(device, length, TOKENS * (steps + 2)) for length in lengths}
    longest = max(int(case.max()) for case in cases.values())
    require_packed_path(engine, longest)
    yield Measurement("memory before the first step", memory.allocated / 2**30, "GiB")
    costs: Costs | None = None
    vocabulary = int(engine.objective.config.vocab_size)
    for length, case in cases.items():
        split = workload.examples(case, vocabulary)
        task = local_task(
            device,
            examples=len(split),
            batch_size=len(split) // (steps + 2),
            method=trained,
            zero_stage=zero_stage,
            offload=offload,
        )
        costs = costs or micro_batch_costs(task, engine, longest)
        memory.reset()
        calls = KernelCalls()
        with calls.watch():
            found = timed_run(
                *(task, engine, split, costs),
                steps=steps,
                folder=device.folder / "checkpoints",
            )
        if not device.is_rehearsal and not calls.count:
            raise RuntimeError("the training never called varlen_attn on this GPU")
        details = {
            "model": model,
            "method": method,
            "dropout": dropout,
            "length": length,
            "offload": offload,
            "micro_batches": micro_batches(task, case, costs),
            "checkpointed": checkpointed_layers(engine),
            "is_fused": engine.compute_path.is_fused,
            "attention": calls.describe(),
            "step_seconds": found.seconds,
        }
        name = "mixed lengths" if length is None else f"{length:,}-token examples"
        speed = tokens_per_second(found)
        yield Measurement(name, speed, SPEED, details=details)
        if (share := utilization(device, model, method, case, speed)) is not None:
            yield Measurement(f"{name}, MFU", share, "of peak")
        yield Measurement(f"{name}, peak of tensors", memory.peak / 2**30, "GiB")
        yield Measurement(f"{name}, peak taken from the driver", memory.reserved / 2**30, "GiB")


def checkpointed_layers(engine: Engine) -> int:
    """The number of layers whose activations are recomputed."""
    modules = engine.model.modules()
    return sum(getattr(module, "gradient_checkpointing", None) is True for module in modules)


def tokens_per_second(found: TimedRun) -> float:
    """Real tokens per second after the warm-up."""
    return sum(found.tokens[WARM_UP:]) / sum(found.seconds[WARM_UP:])


def micro_batches(task: TrainTask, lengths: Sizes, costs: Costs) -> list[int]:
    """The tokens of each micro-batch of the first step."""
    from finetune_trainer.batching.order import step_examples
    from finetune_trainer.batching.packing import pack_step

    parameters = task.hyperparameters
    chosen = step_examples(len(lengths), parameters.batch_size, parameters.seed, 1)
    bins = pack_step(lengths[chosen], costs.slots, 1)[0]
    return [int(lengths[chosen][members].sum()) for members in bins]


def utilization(
    device: Device, model: str, method: str, lengths: Sizes, speed: float
) -> float | None:
    """MFU; None if the peak of the card is not known."""
    from finetune_data.memory.shape import ModelShape
    from finetune_trainer.engine.mfu import flops_per_token, mean_attended, peak_of

    config: Any = configuration(model, is_tiny=device.is_rehearsal)
    shape = ModelShape.of(config.to_dict(), None)
    assert shape is not None
    flops = flops_per_token(
        shape,
        tied=bool(config.tie_word_embeddings),
        attended=mean_attended(workload.examples(lengths, int(config.vocab_size))),
        trains_everything=method == "full",
    )
    peak = peak_of(device.card)
    return None if peak is None else flops * speed / peak
