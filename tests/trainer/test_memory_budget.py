"""The size of a micro-batch from the free memory of a GPU."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from finetune_api.tasks import Offload
from finetune_data.memory.node import GIB
from finetune_data.memory.shape import ModelShape
from finetune_trainer.engine import memory_budget
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.memory_budget import (
    micro_batch_costs,
    pending_gradient_bytes,
    tokens_in,
)
from tests.trainer import support

PARAMETERS = 8 * 10**9


@pytest.mark.parametrize(
    ("stage", "offload", "ranks", "expected"),
    [
        (1, "none", 1, 0),  # the fp32 gradients exist before the first step
        (1, "none", 8, 0),
        (2, "none", 1, 6),
        (2, "none", 8, 0.75),
        (3, "none", 8, 0),
        (1, "optimizer", 1, 4),
        (1, "optimizer", 8, 4),
        (2, "optimizer", 8, 0.75),
        (3, "optimizer", 8, 0),
        (3, "parameters", 1, 0),
    ],
)
def test_only_gradients_that_do_not_exist_yet_need_room(
    stage: int, offload: Offload, ranks: int, expected: float
) -> None:
    assert pending_gradient_bytes(stage, offload, ranks) == expected


class FakeEngine:
    """The part of `Engine` that a choice uses, of a model with 8 billion parameters."""

    def __init__(self, zero_stage: int, ranks: int) -> None:
        self.zero_stage = zero_stage
        self.coordinates = SimpleNamespace(ranks=ranks)
        self.model = SimpleNamespace()
        config = {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "intermediate_size": 14336,
        }
        self.objective = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: config))

    def parameters(self) -> Any:
        return [("weight", None)]

    def shape(self, parameter: Any) -> tuple[int, ...]:
        return (PARAMETERS,)

    def least(self, own: float) -> float:
        return own


def slots_of(monkeypatch: pytest.MonkeyPatch, free: float, stage: int, ranks: int) -> int:
    """Tokens of a micro-batch. free: GiB after cached memory is returned; before, half of it."""
    import torch

    cached = [True]
    monkeypatch.setattr(torch.cuda, "empty_cache", cached.clear)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda: (free * GIB / (2 if cached else 1), 80 * GIB)
    )
    task = support.train_task("x", accelerator="nvidia", zero_stage=stage, offload="none")
    return micro_batch_costs(task, cast("Engine", FakeEngine(stage, ranks)), longest=1024).slots


def test_zero_1_needs_no_room_for_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots_of(monkeypatch, 20, 1, 8) > 4 * memory_budget.ENOUGH_SLOTS / 2


def test_the_free_memory_includes_what_torch_had_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    found = slots_of(monkeypatch, 20, 1, 8)
    shape = ModelShape(PARAMETERS, hidden=4096, layers=32, vocabulary=128256)
    room = 20 * GIB - 6 * 128256 * 4096 - memory_budget.HEAD_BYTES
    expected = tokens_in(memory_budget.USABLE * room, shape, is_checkpointed=True)
    assert found == min(memory_budget.GPU_SLOTS, expected)


def test_zero_2_divides_the_room_for_gradients_by_the_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many, few = (slots_of(monkeypatch, 12, 2, ranks) for ranks in (64, 8))
    assert many > few > 1024
