"""The memory of a rank, and the plan that is chosen from it."""

from __future__ import annotations

import pytest

from finetune_api.tasks import MethodRef, Offload, RankResources
from finetune_data.memory.node import GIB, Node
from finetune_data.memory.plan import choose_plan, estimate, fallback_plans, smallest_plan
from finetune_data.memory.shape import ModelShape
from finetune_data.memory.states import pending_gradient_bytes, states

LLAMA_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "torch_dtype": "bfloat16",
}
FULL, LORA = MethodRef(), MethodRef(type="lora")


def shape(weight_bytes: int | None = None) -> ModelShape:
    found = ModelShape.of(LLAMA_8B, weight_bytes)
    assert found is not None
    return found


def workers(ranks: int, memory: float | None = 80, **changes: object) -> RankResources:
    values = {"processesPerNode": ranks, "accelerator": "nvidia", "gpuMemoryGib": memory}
    return RankResources.model_validate(values | changes)


def test_parameters_are_counted_from_the_files_or_from_the_config() -> None:
    assert shape(16_060_522_496).parameters == 8_030_261_248
    assert abs(shape().parameters / 8_030_261_248 - 1) < 0.001
    assert ModelShape.of({"model_type": "odd"}, None) is None


def test_a_higher_stage_needs_less_and_zero_0_is_zero_1_on_gpus() -> None:
    eight = [
        states(shape(), workers(8), FULL, zero_stage=stage, offload="none").backward
        for stage in range(4)
    ]
    assert eight[0] == eight[1] > eight[2] > eight[3]
    assert eight[1] / shape().parameters == pytest.approx(2 + 4 + 12 / 8)


@pytest.mark.parametrize(
    ("ranks", "memory", "method", "stage", "offload"),
    [
        (8, 80, FULL, 1, "none"),
        (8, 48, FULL, 2, "none"),
        (8, 30, FULL, 3, "none"),
        (1, 141, FULL, 1, "optimizer"),
        (1, 80, FULL, 3, "optimizer"),
        (1, 80, LORA, 0, "none"),
        (1, 16, FULL, 3, "parameters"),
        (2, 400, FULL, 1, "none"),
    ],
)
def test_the_first_plan_that_fits_is_chosen(
    ranks: int, memory: float, method: MethodRef, stage: int, offload: str
) -> None:
    plan = choose_plan(shape(), workers(ranks, memory), method, 2048)
    assert plan is not None
    assert (plan.zero_stage, plan.offload) == (stage, offload)
    assert plan.peak <= 0.9 * memory * GIB


@pytest.mark.parametrize(
    ("stage", "offload", "ranks", "expected"),
    [
        (1, "none", 1, 0),  # the fp32 gradients exist before the first step
        (1, "none", 8, 0),
        (2, "none", 1, 6),
        (2, "none", 8, 0.75),
        (3, "none", 8, 0),
        (1, "optimizer", 1, 8),
        (1, "optimizer", 8, 4.5),
        (2, "optimizer", 8, 0.75),
        (3, "optimizer", 8, 0),
        (3, "parameters", 1, 0),
    ],
)
def test_only_gradients_that_do_not_exist_yet_need_room(
    stage: int, offload: Offload, ranks: int, expected: float
) -> None:
    assert pending_gradient_bytes(stage, offload, ranks) == expected


def test_settings_of_the_user_stay_and_may_not_fit() -> None:
    assert choose_plan(shape(), workers(1, 80, zeroStage=0), FULL, 2048) is None
    assert smallest_plan(shape(), workers(1, 80, zeroStage=0), FULL, 2048).zero_stage == 0
    kept = choose_plan(shape(), workers(8, 80, zeroStage=2), FULL, 2048)
    assert kept is not None
    assert kept.zero_stage == 2


@pytest.mark.parametrize(
    ("free", "stage"),
    [
        (workers(1, None), 0),
        (workers(8, None), 1),
        (workers(1, None, zeroStage=2), 2),
        (RankResources(accelerator="cpu"), 0),
        (RankResources(accelerator="cpu", processes_per_node=2), 1),
    ],
)
def test_unknown_memory_and_cpu_refuse_nothing_and_offload_nothing(
    free: RankResources, stage: int
) -> None:
    plan = choose_plan(shape(), free, FULL, 2048)
    assert plan is not None
    assert (plan.zero_stage, plan.offload) == (stage, "none")
    asked = choose_plan(shape(), free.replace(offload="optimizer"), FULL, 2048)
    assert asked is not None
    assert asked.offload == "optimizer"


def test_longer_examples_need_more() -> None:
    short, long = (
        estimate(shape(), workers(8), FULL, tokens=tokens, zero_stage=3).peak
        for tokens in (512, 8192)
    )
    assert long > short


def test_the_first_rank_has_room_to_merge_the_experts_of_a_layer() -> None:
    """A merge needs 16.2 bytes per number of the larger one of their two tensors."""
    experts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    mixture = ModelShape.of(LLAMA_8B | experts, None)
    assert mixture is not None
    fused = 128 * 2 * 768 * 4096
    alone = estimate(mixture, workers(1), LORA, tokens=512, zero_stage=1).node
    assert alone.memory - alone.checkpoint > 16 * fused
    dense, full = (
        estimate(made, workers(1), method, tokens=512, zero_stage=1).node
        for made, method in ((shape(), LORA), (mixture, FULL))
    )
    assert alone.memory - alone.checkpoint > full.memory - full.checkpoint
    assert full.memory - full.checkpoint > dense.memory - dense.checkpoint


def test_each_fallback_needs_less_memory_and_keeps_the_users_settings() -> None:
    for free in (workers(8, 80), workers(8, 80, zeroStage=3), workers(1, 80)):
        plan = choose_plan(shape(), free, FULL, 2048)
        assert plan is not None
        found = fallback_plans(shape(), free, FULL, 2048, plan)
        peaks = [plan.peak, *(other.peak for other in found)]
        assert peaks == sorted(set(peaks), reverse=True)
        assert found[-1].offload == "parameters"
        if free.zero_stage is not None:
            assert {other.zero_stage for other in found} == {free.zero_stage}


def test_a_plan_that_the_user_fixes_or_that_is_on_cpu_has_no_fallback() -> None:
    fixed = workers(8, 80, zeroStage=1, offload="none")
    for free in (fixed, RankResources(accelerator="cpu")):
        plan = choose_plan(shape(), free, FULL, 2048)
        assert plan is not None
        assert fallback_plans(shape(), free, FULL, 2048, plan) == []


def test_a_dataset_that_repeats_many_examples_adds_to_the_disk() -> None:
    node = Node(memory=1, least_memory=1, checkpoint=1, disk=5 * GIB)
    assert node.with_dataset(GIB // 2).disk == 5 * GIB
    assert node.with_dataset(3 * GIB).disk == 7 * GIB
