"""Checks that the training fits the memory of its GPUs before any GPU is requested."""

from __future__ import annotations

from finetune_api.tasks import PrepareTask
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.memory.plan import USABLE, Plan, choose_plan, smallest_plan
from finetune_data.memory.shape import ModelShape


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
    alternative = None
    if other is not None:
        settings = f"zeroStage {other.zero_stage} with offload {other.offload}"
        alternative = f"{settings} needs about {other.gib:.1f} GiB"
    raise DataError(
        failures.does_not_fit(
            f"{task.base.name} ({shape.parameters / 1e9:.1f} billion parameters)",
            needed=f"{least.gib:.1f} GiB per GPU with zeroStage {least.zero_stage}, offload "
            f"{least.offload} on {workers.ranks} GPUs",
            usable=f"{USABLE:.0%} of {workers.gpu_memory_gib:g} GiB",
            alternative=alternative,
            param="deepspeed" if is_fixed and alternative else "resources.gpusPerNode",
        )
    )
