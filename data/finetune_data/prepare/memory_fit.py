"""Checks that the training fits the memory of its GPUs before any GPU is requested."""

from __future__ import annotations

from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_api.tasks import PrepareTask
from finetune_data.errors import DataError
from finetune_data.models.memory_model import USABLE, ModelShape, Plan, choose_plan, smallest_plan


def fit_memory(shape: ModelShape | None, task: PrepareTask, tokens: int) -> Plan | None:
    """The ZeRO stage and offload to use; None if the model's config lacks the numbers.

    tokens: the length of the longest example. Raises DataError (InvalidSpec) if nothing fits.
    """
    if shape is None:
        return None
    plan = choose_plan(shape, task.workers, task.method, tokens)
    if plan is not None:
        return plan
    workers = task.workers
    least = smallest_plan(shape, workers, task.method, tokens)
    free = workers.model_copy(update={"zero_stage": None, "offload": None})
    other = choose_plan(shape, free, task.method, tokens)
    is_fixed = workers.zero_stage is not None or workers.offload is not None
    settings = f"zeroStage {least.zero_stage}, offload {least.offload}"
    hint = (
        f"omit deepspeed: zeroStage {other.zero_stage} with offload {other.offload} needs "
        f"about {other.gib:.1f} GiB"
        if other is not None
        else "use more GPUs, method.type lora, a shorter maxSequenceLength, or a smaller model"
    )
    raise DataError(
        Failure(
            code=Reason.INVALID_SPEC,
            message=f"{task.base.name} ({shape.parameters / 1e9:.1f} billion parameters) does not "
            f"fit: about {least.gib:.1f} GiB per GPU with {settings} on {workers.ranks} GPUs, but "
            f"only {USABLE:.0%} of {workers.gpu_memory_gib:g} GiB can be used",
            param="deepspeed" if is_fixed and other is not None else "resources.gpusPerNode",
            hint=hint,
        )
    )
