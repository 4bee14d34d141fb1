"""The check of resources.memory and resources.ephemeralStorage against the estimate."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_api.tasks import PrepareTask
from finetune_data.errors import DataError
from finetune_data.memory.plan import Plan, in_gib
from finetune_data.memory.shape import ModelShape
from finetune_data.prepare.memory_fit import find_fallbacks, fit_memory, memory_advice
from tests.data.builders import prepare_task

SHAPE = ModelShape(parameters=8_000_000_000, hidden=4096, layers=32, vocabulary=128_256)
TOKENS = 2048
EIGHT = {"nodes": 1, "processesPerNode": 8, "accelerator": "nvidia", "gpuMemoryGib": 80.0}


def task(**workers: Any) -> PrepareTask:
    return prepare_task("bucket", workers={**EIGHT, **workers})


def fit(**workers: Any) -> Plan:
    plan = fit_memory(SHAPE, task(**workers), TOKENS)
    assert plan is not None
    return plan


def refusal(**workers: Any) -> Failure:
    with pytest.raises(DataError) as refused:
        fit(**workers)
    failure = refused.value.failure
    assert failure.code == Reason.INVALID_SPEC
    return failure


def advice(**workers: Any) -> list[str]:
    return memory_advice(fit(**workers), task(**workers).workers)


def test_without_amounts_there_is_nothing_to_check() -> None:
    assert advice() == []
    assert fit_memory(None, task(memoryGib=0.1), TOKENS) is None
    assert memory_advice(None, task(memoryGib=0.1).workers) == []


def test_memory_below_the_lower_bound_is_refused_with_both_numbers_and_a_way_out() -> None:
    least = in_gib(fit().node.least_memory)
    failure = refusal(memoryGib=least - 1)
    assert failure.param == "resources.memory"
    assert f"at least {least:,.1f} GiB of host memory" in failure.message
    assert f"resources.memory is {least - 1:,.1f} GiB" in failure.message
    assert "GPU" not in failure.message
    assert failure.hint is not None
    amount = float(failure.hint.split("resources.memory to ")[1].split("Gi")[0])
    assert advice(memoryGib=amount) == []


def test_memory_between_the_lower_bound_and_the_estimate_is_advice_with_both_numbers() -> None:
    node = fit().node
    tight = in_gib((node.least_memory + node.memory) / 2)
    (sentence,) = advice(memoryGib=tight)
    assert f"resources.memory is {tight:,.1f} GiB" in sentence
    assert f"needs about {in_gib(node.memory):,.1f} GiB" in sentence
    assert advice(memoryGib=in_gib(node.memory) + 0.1) == []


def test_files_above_the_ephemeral_storage_are_advice_and_never_refused() -> None:
    files = in_gib(fit().node.disk)
    (sentence,) = advice(ephemeralStorageGib=0.5)
    assert "resources.ephemeralStorage is 0.5 GiB" in sentence
    assert f"about {files:,.1f} GiB" in sentence
    assert advice(ephemeralStorageGib=files + 0.1) == []


def test_an_offload_for_which_the_memory_is_too_small_names_the_plan_that_fits() -> None:
    chosen = fit()
    assert chosen.offload == "none"
    failure = refusal(memoryGib=in_gib(chosen.node.memory) + 1, offload="optimizer")
    assert failure.param == "resources.memory"
    assert f"zeroStage {chosen.zero_stage} and offload none" in (failure.hint or "")


def test_gpus_that_are_too_small_are_not_mistaken_for_host_memory() -> None:
    failure = refusal(gpuMemoryGib=10.0, memoryGib=4000.0, offload="none")
    assert failure.param == "deepspeed"
    assert "does not fit the GPUs" in failure.message
    assert "of resources.memory" in (failure.hint or "")
    assert refusal(gpuMemoryGib=0.5).param == "resources.gpusPerNode"


def test_on_cpu_the_rank_itself_is_host_memory() -> None:
    cpu = {"processesPerNode": 1, "accelerator": "cpu", "gpuMemoryGib": None}
    assert refusal(**cpu, memoryGib=0.2).param == "resources.memory"
    assert len(advice(**cpu, memoryGib=in_gib(fit(**cpu).node.least_memory) + 1)) == 1


def test_later_plans_need_less_and_less_of_a_gpu_within_the_settings_of_the_user() -> None:
    chosen = fit()
    plans = find_fallbacks(SHAPE, task(), TOKENS, chosen)
    assert len(plans) >= 2
    sizes = [chosen.gib, *(plan.memory_per_rank_gib for plan in plans)]
    assert sizes == sorted(sizes, reverse=True)
    roomy = max(plan.memory_per_pod_gib for plan in plans)
    limited = task(memoryGib=in_gib(chosen.node.memory) + 1)
    assert all(
        plan.memory_per_pod_gib < roomy for plan in find_fallbacks(SHAPE, limited, TOKENS, chosen)
    )
    fixed = task(zeroStage=chosen.zero_stage, offload=chosen.offload)
    assert find_fallbacks(SHAPE, fixed, TOKENS, chosen) == []
    assert find_fallbacks(None, task(), TOKENS, None) == []
