"""Checks that the training fits its GPUs and the memory of its pods before any is requested."""

from __future__ import annotations

import math
from typing import NoReturn

from finetune_api.tasks import FallbackPlan, PrepareTask, RankResources
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.memory.plan import (
    USABLE,
    Plan,
    choose_plan,
    fallback_plans,
    in_gib,
    smallest_plan,
)
from finetune_data.memory.shape import ModelShape


def fit_memory(shape: ModelShape | None, task: PrepareTask, tokens: int) -> Plan | None:
    """The ZeRO stage and offload to use; None if the model's config lacks the numbers.

    tokens: the length of the longest example. Raises DataError (InvalidSpec) if nothing fits.
    """
    if shape is None:
        return None
    return _choose(shape, task.workers, task, tokens) or _refuse(shape, task, tokens)


def memory_advice(plan: Plan | None, workers: RankResources) -> list[str]:
    """Advice on amounts of the spec that are below the estimate, which is never an error."""
    if plan is None:
        return []
    advice = []
    memory, storage = workers.memory_gib, workers.ephemeral_storage_gib
    needed, files = in_gib(plan.node.memory), in_gib(plan.node.disk)
    if memory is not None and memory < needed:
        advice.append(
            f"resources.memory is {memory:,.1f} GiB, but a pod needs about {needed:,.1f} GiB of "
            "host memory: raise it, or the pods may be killed."
        )
    if storage is not None and storage < files:
        advice.append(
            f"resources.ephemeralStorage is {storage:,.1f} GiB, but the files of a pod need about "
            f"{files:,.1f} GiB: raise it, or the pods may be evicted."
        )
    return advice


def _choose(
    shape: ModelShape, workers: RankResources, task: PrepareTask, tokens: int
) -> Plan | None:
    """The fastest plan that fits, or else one that may need more memory than resources.memory."""
    return choose_plan(shape, workers, task.method, tokens) or choose_plan(
        shape, workers, task.method, tokens, is_tight=True
    )


def _refuse(shape: ModelShape, task: PrepareTask, tokens: int) -> NoReturn:
    """Raise a DataError that says which memory is too small, and names settings that fit."""
    workers = task.workers
    model = f"{task.base.name} ({shape.parameters / 1e9:.1f} billion parameters)"
    is_fixed = workers.zero_stage is not None or workers.offload is not None
    free = workers.replace(zero_stage=None, offload=None)
    other = _choose(shape, free, task, tokens) if is_fixed else None
    roomy = choose_plan(shape, workers.replace(memory_gib=None), task.method, tokens)
    if roomy is not None:  # the GPUs are large enough
        assert workers.memory_gib is not None
        raise DataError(
            failures.exceeds_host_memory(
                model,
                least=f"{in_gib(roomy.node.least_memory):,.1f} GiB",
                available=f"{workers.memory_gib:,.1f} GiB",
                settings=_settings(roomy),
                enough=f"{math.ceil(in_gib(roomy.node.memory))}Gi",
                alternative=_settings(other) if other else None,
            )
        )
    least = smallest_plan(shape, workers, task.method, tokens)
    other = other or choose_plan(shape, free.replace(memory_gib=None), task.method, tokens)
    raise DataError(
        failures.exceeds_gpu_memory(
            model,
            needed=f"{least.gib:.1f} GiB per GPU with {_settings(least)} on {workers.ranks} GPUs",
            usable=f"{USABLE:.0%} of {workers.gpu_memory_gib:g} GiB",
            alternative=_alternative(other, workers) if other else None,
        )
    )


def find_fallbacks(
    shape: ModelShape | None, task: PrepareTask, tokens: int, plan: Plan | None
) -> list[FallbackPlan]:
    """The plans for attempts after `plan` has run out of memory, by decreasing memory of a GPU."""
    if shape is None or plan is None:
        return []
    return [
        FallbackPlan(
            zero_stage=other.zero_stage,
            offload=other.offload,
            memory_per_rank_gib=other.gib,
            memory_per_pod_gib=in_gib(other.node.memory),
        )
        for other in fallback_plans(shape, task.workers, task.method, tokens, plan)
    ]


def _settings(plan: Plan) -> str:
    return f"zeroStage {plan.zero_stage} and offload {plan.offload}"


def _alternative(plan: Plan, workers: RankResources) -> str:
    """The needs of a plan for which the user must omit deepspeed, and raise memory if necessary."""
    text = f"{_settings(plan)} needs about {plan.gib:.1f} GiB per GPU"
    if workers.memory_gib is None:
        return text
    return f"{text}, and about {in_gib(plan.node.memory):.1f} GiB of resources.memory"
