"""The trainer's engine and task on the device, as a part uses them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from bench.gpu.device import Device
from bench.gpu.models import random_model, sizes
from bench.trainer import workload
from bench.trainer.subject import connect_alone
from bench.trainer.task import build_task
from finetune_api.names import ENV_LOCAL_ROOT, LOCAL_BUCKET
from finetune_api.tasks import MethodRef, Offload, TrainTask

if TYPE_CHECKING:
    from finetune_trainer.engine.deepspeed import Engine
    from finetune_trainer.step.stepper import Stepper

FULL = MethodRef(type="full")


def lora(dropout: float = 0.0) -> MethodRef:
    return MethodRef(type="lora", dropout=dropout)


def local_task(
    device: Device,
    *,
    examples: int,
    batch_size: int,
    method: MethodRef = FULL,
    zero_stage: int = 0,
    offload: Offload = "none",
) -> TrainTask:
    """A task of one rank whose object storage is a folder of this machine."""
    root = device.folder / "objects"
    root.mkdir(parents=True, exist_ok=True)
    os.environ[ENV_LOCAL_ROOT] = str(root)
    task = build_task(examples=examples, batch_size=batch_size)
    return task.replace(
        run=task.run.replace(output=f"s3://{LOCAL_BUCKET}/out"),
        accelerator=device.accelerator,
        method=method,
        zero_stage=zero_stage,
        offload=offload,
    )


def build_engine(
    device: Device,
    model: str,
    *,
    method: MethodRef = FULL,
    zero_stage: int = 0,
    offload: Offload = "none",
    precision: Literal["bf16", "fp32"] = "bf16",
) -> Engine:
    """The engine of a model with random weights. A rehearsal computes in bf16 as well."""
    from finetune_trainer.engine import attention
    from finetune_trainer.engine.deepspeed import Engine, RankCoordinates
    from finetune_trainer.engine.loading import import_libraries
    from finetune_trainer.engine.lora import add_adapter

    import_libraries()
    attention.register()
    connect_alone(device.accelerator)
    made = random_model(device, model, precision)
    if method.type == "lora":
        made = add_adapter(made, method, 1)
    return Engine(
        *(made, RankCoordinates(0, 0, 1)),
        zero_stage=zero_stage,
        precision=precision,
        weight_decay=0.0,
        offload=offload,
    )


def require_packed_path(engine: Engine, longest: int) -> None:
    """Choose the compute path as a rank does. Raises RuntimeError if it is not the fastest one."""
    from finetune_trainer.engine.compute_path import choose_compute_path

    warnings: list[str] = []
    path = choose_compute_path(engine, longest=longest, warn=warnings.append)
    if not (path.is_packed and path.is_chunked):
        reasons = "; ".join(warnings)
        raise RuntimeError(f"the compute path is {path}, not the packed and chunked one: {reasons}")
    print(f"  compute path: packed, chunked{', fused norms' if path.is_fused else ''}")


def packed_steps(
    device: Device, model: str, *, length: int, tokens: int, steps: int
) -> tuple[Engine, TrainTask, Stepper]:
    """A full fine-tune of `steps` equal steps on the packed path. tokens: of a step."""
    from finetune_trainer.engine.memory_budget import micro_batch_costs
    from finetune_trainer.step.stepper import Stepper

    engine = build_engine(device, model)
    lengths = sizes(device, length, tokens * steps)
    longest = int(lengths.max())
    require_packed_path(engine, longest)
    split = workload.examples(lengths, int(engine.objective.config.vocab_size))
    task = local_task(device, examples=len(split), batch_size=len(split) // steps)
    return engine, task, Stepper(task, engine, split, micro_batch_costs(task, engine, longest))
