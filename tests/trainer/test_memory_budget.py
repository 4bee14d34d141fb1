"""The size of a micro-batch from the free memory of a GPU."""

from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest

from finetune_api.tasks import MethodRef
from finetune_data.memory.activations import CHUNK_BYTES, Activations
from finetune_data.memory.node import GIB
from finetune_data.memory.shape import ModelShape
from finetune_trainer.engine import memory_budget
from finetune_trainer.engine.deepspeed import GATHERED, Engine, configuration
from finetune_trainer.engine.memory_budget import (
    GPU_SLOTS,
    Choice,
    choose_micro_batch,
    micro_batch_costs,
)
from finetune_trainer.engine.objective import ComputePath
from tests.trainer import support

LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
}
FULL, LORA = MethodRef(), MethodRef(type="lora")
SHARES = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)


class FakeEngine:
    """The part of `Engine` that a choice uses, of a model with 8 billion parameters."""

    def __init__(self, zero_stage: int, ranks: int) -> None:
        self.zero_stage = zero_stage
        self.coordinates = SimpleNamespace(ranks=ranks)
        self.model = SimpleNamespace()
        self.compute_path = ComputePath(is_packed=True, is_chunked=True)
        self.objective = SimpleNamespace(
            config=SimpleNamespace(to_dict=lambda: LLAMA_8B),
            head=SimpleNamespace(chunk_share=1.0),
            own_attention="sdpa",
        )

    def least(self, own: float) -> float:
        return own


def slots_of(
    monkeypatch: pytest.MonkeyPatch, free: float, stage: int, ranks: int, share: float = 1
) -> int:
    """Tokens of a micro-batch. free: GiB after cached memory is returned; before, half of it."""
    import torch

    cached = [True]
    monkeypatch.setattr(torch.cuda, "empty_cache", cached.clear)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda: (free * GIB / (2 if cached else 1), 80 * GIB)
    )
    monkeypatch.setattr(memory_budget, "enable_checkpointing", lambda *_: None)
    task = support.train_task("x", accelerator="nvidia", zero_stage=stage, offload="none")
    task = task.replace(micro_batch_share=share)
    return micro_batch_costs(task, cast("Engine", FakeEngine(stage, ranks)), longest=1024).slots


def test_the_free_memory_includes_what_torch_had_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    found = slots_of(monkeypatch, 8, 1, 8)
    expected = choose_micro_batch(llama(1024), memory_budget.USABLE * 8 * GIB, 1024).tokens
    assert found == expected > slots_of(monkeypatch, 4, 1, 8)


def test_zero_2_divides_the_room_for_gradients_by_the_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many, few = (slots_of(monkeypatch, 12, 2, ranks) for ranks in (64, 8))
    assert many > few > 1024


def test_the_last_retry_after_memory_ran_out_has_one_example_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, last = (slots_of(monkeypatch, 60, 1, 8, share) for share in (1, 1 / 16))
    assert 1024 <= last < first / 4


def llama(row: int, method: MethodRef = FULL) -> Activations:
    shape = ModelShape.of(LLAMA_8B, None)
    assert shape is not None
    return Activations(shape, method, 2, row)


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "LoRA"])
@pytest.mark.parametrize("longest", [128, 2048, 32768])
@pytest.mark.parametrize("room", [4, 8, 16, 30, 45, 60, 100])
def test_a_choice_fits_and_no_other_is_faster(room: float, longest: int, method: MethodRef) -> None:
    model = llama(longest, method)
    choice = choose_micro_batch(model, room * GIB, longest)
    if model.peak(longest, 32) > room * GIB:
        assert choice == Choice(longest, 32)
        return
    assert model.peak(choice.tokens, choice.checkpointed) <= room * GIB
    assert choice.tokens >= longest
    assert choice.tokens >= min(model.tokens_in(room * GIB, choice.checkpointed), GPU_SLOTS)
    if choice.checkpointed:  # one layer fewer would have a price
        assert model.tokens_in(room * GIB, choice.checkpointed - 1) < choice.tokens


def test_layers_are_checkpointed_only_where_memory_is_tight() -> None:
    found = [choose_micro_batch(llama(1024), room * GIB, 1024) for room in (120, 40, 16, 6)]
    assert found[0] == Choice(GPU_SLOTS, 0)
    checkpointed = [choice.checkpointed for choice in found]
    assert checkpointed == sorted(checkpointed)
    assert any(0 < layers < 32 for layers in checkpointed)


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "LoRA"])
@pytest.mark.parametrize("longest", [128, 2048, 16384])
@pytest.mark.parametrize("room", [5, 10, 20, 40, 80])
def test_every_retry_needs_less_until_nothing_can_be_less(
    room: float, longest: int, method: MethodRef
) -> None:
    def peak(share: float) -> tuple[Choice, float]:
        model = llama(longest, method)
        choice = choose_micro_batch(model, room * GIB, longest, share)
        chunk = CHUNK_BYTES["cuda"] * share
        smaller = Activations(model.shape, method, 2, longest, chunk_bytes=chunk)
        return choice, smaller.peak(choice.tokens, choice.checkpointed)

    first = peak(1)[1]
    for former, share in pairwise(SHARES):
        choice, bytes_ = peak(share)
        if choice == Choice(longest, 32):
            assert bytes_ <= peak(former)[1]
        else:
            assert bytes_ <= share * first


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_retry_has_smaller_buffers(stage: int) -> None:
    usual, half = (
        configuration(
            zero_stage=stage, precision="bf16", offload="none", ranks=8, buffer_share=share
        )["zero_optimization"]
        for share in (1, 0.5)
    )
    for name in ("reduce_bucket_size", "allgather_bucket_size"):
        assert half[name] == usual[name] // 2
    for name in GATHERED:
        assert half.get(name) == (usual[name] // 2 if stage == 3 else None)
