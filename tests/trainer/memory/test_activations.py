"""The estimate of activations, compared with the storages that a forward and backward pass keeps.

A model has thousands of operations, but its layers are the same: a few layers give the memory of
any number.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from finetune_api.tasks import MethodRef
from finetune_data.memory.activations import (
    CHUNK_BYTES,
    Activations,
    activation_bytes,
    attention_of,
)
from finetune_data.memory.families import FAMILIES
from finetune_data.memory.node import GIB
from finetune_data.memory.shape import ModelShape
from finetune_trainer.engine.memory_budget import GPU_SLOTS, USABLE, choose_micro_batch
from finetune_trainer.engine.objective import ComputePath
from tests.support.cases import every_nth
from tests.trainer.memory.catalog import OTHERS, PUBLISHED, config
from tests.trainer.memory.fake_objective import LENGTH, count, gpu_kernels

pytestmark = pytest.mark.slow  # torch and transformers build each model with fake tensors

MOST = 1.15
FULL = MethodRef()
LORA = MethodRef(type="lora", rank=16, alpha=32)
DROPOUT = LORA.replace(dropout=0.05)
UNCHUNKED = ComputePath(is_packed=True)
FUSED = ComputePath(is_chunked=True, is_packed=True, is_fused=True)
CASES = {
    "full": (FULL, False, 16384),
    "full, checkpointed": (FULL, True, 16384),
    "LoRA": (LORA, False, 16384),
    "LoRA with dropout, checkpointed": (DROPOUT, True, 4096),
}


def counted(name: str, method: MethodRef, checkpointed: int, **options: Any) -> float:
    """Peak bytes of the whole model, of which `checkpointed` layers are."""

    def peak(layers: int, checkpointed: int) -> float:
        return count(config(name, layers), method, checkpointed=checkpointed, **options)

    layers = shape_of(name).layers
    with gpu_kernels():
        if checkpointed == layers:
            few, more = (peak(number, number) for number in (2, 3))
            return few + (layers - 2) * (more - few)
        few, more = (peak(number, min(1, checkpointed)) for number in (2, 3))
        found = few + (layers - 2) * (more - few)
        if checkpointed > 1:
            found += (checkpointed - 1) * (peak(3, 2) - more)
        return found


def shape_of(name: str) -> ModelShape:
    shape = ModelShape.of(config(name).to_dict(), None)
    assert shape is not None
    return shape


def estimated(name: str, method: MethodRef, row: int = LENGTH) -> Activations:
    shape = shape_of(name)
    return Activations(shape, method, 2, row, attention=attention_of(shape, row))


def check(found: float, estimate: float) -> None:
    assert found <= estimate <= MOST * found


@pytest.mark.parametrize(("name", "case"), every_nth(itertools.product(PUBLISHED, CASES), 3))
def test_published_models_need_at_most_the_estimate(name: str, case: str) -> None:
    method, is_checkpointed, tokens = CASES[case]
    shape = shape_of(name)
    if shape.experts and method.dropout:
        pytest.skip("peft has no dropout for experts, which a test of LoRA expects")
    checkpointed = shape.layers if is_checkpointed else 0
    model = replace(estimated(name, method), attention="flash")
    if shape.caps_scores:  # it is never packed
        model = replace(model, attention="eager")
        found = counted(name, method, checkpointed, tokens=tokens, rows=tokens // LENGTH)
    else:
        found = counted(name, method, checkpointed, tokens=tokens)
    check(found, model.peak(tokens, checkpointed))


@pytest.mark.parametrize(
    ("name", "case"),
    every_nth(itertools.product(["Llama-3.1-8B", "OLMo-2-7B", "Qwen3-8B"], CASES), 5),
)
def test_fused_norms_need_less_than_others_and_at_most_the_estimate(name: str, case: str) -> None:
    method, is_checkpointed, tokens = CASES[case]
    model = estimated(name, method)
    checkpointed = model.shape.layers if is_checkpointed else 0
    found = counted(name, method, checkpointed, tokens=tokens, path=FUSED)
    fused = replace(model, is_fused=True).peak(tokens, checkpointed)
    check(found, fused)
    assert fused < model.peak(tokens, checkpointed)


@pytest.mark.parametrize(
    ("name", "method"),
    every_nth(
        (
            pytest.param(name, method, id=f"{name}, {kind}")
            for name in OTHERS
            for method, kind in ((FULL, "full"), (LORA, "LoRA"))
        ),
        3,
    ),
)
def test_every_other_known_type_needs_at_most_the_estimate(name: str, method: MethodRef) -> None:
    model = estimated(name, method)
    path = UNCHUNKED if name == "phi" else None
    found = counted(name, method, 0, tokens=4096, path=path)
    check(found, replace(model, is_chunked=name != "phi").peak(4096, 0))


def test_the_tests_know_every_known_type() -> None:
    assert {*FAMILIES} == {*OTHERS, *(known["model_type"] for known in PUBLISHED.values())}


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "LoRA"])
def test_an_unknown_type_is_estimated_to_need_more_than_any_known_one(method: MethodRef) -> None:
    for name in (*PUBLISHED, *OTHERS):
        known = estimated(name, method)
        unknown = replace(known, shape=replace(known.shape, model_type="unheard-of"))
        for checkpointed in (0, known.shape.layers):
            assert unknown.peak(4096, checkpointed) >= known.peak(4096, checkpointed)


@pytest.mark.parametrize(
    ("name", "row"), [("Gemma-2-2B", 4096), ("gemma3_text", 8192)], ids=["scores", "mask"]
)
@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["kept", "checkpointed"])
def test_padded_rows_keep_scores_or_a_mask(name: str, row: int, is_checkpointed: bool) -> None:
    model = estimated(name, LORA, row)
    assert model.attention != "flash"
    checkpointed = model.shape.layers if is_checkpointed else 0
    found = counted(name, LORA, checkpointed, tokens=8192, rows=8192 // row)
    check(found, model.peak(8192, checkpointed))


@pytest.mark.parametrize("checkpointed", [1, 20])
def test_some_layers_are_checkpointed(checkpointed: int) -> None:
    found = counted("Llama-3.1-8B", FULL, checkpointed, tokens=16384)
    check(found, estimated("Llama-3.1-8B", FULL).peak(16384, checkpointed))


@pytest.mark.parametrize("method", [FULL, DROPOUT], ids=["full", "LoRA with dropout"])
def test_in_fp32_on_cpu(method: MethodRef) -> None:
    """The real attention and dropout of a CPU, on which nothing is refused."""
    found = [
        count(
            config("SmolLM2-360M", layers),
            method,
            tokens=2048,
            checkpointed=layers,
            dtype=torch.float32,
        )
        for layers in (2, 3)
    ]
    shape = shape_of("SmolLM2-360M")
    peak = found[0] + (shape.layers - 2) * (found[1] - found[0])
    model = Activations(shape, method, 4, LENGTH, chunk_bytes=CHUNK_BYTES["cpu"])
    assert peak <= model.peak(2048, shape.layers) <= 1.5 * peak
    assert activation_bytes(shape, method, 2048, 4) == model.peak(2048, shape.layers)


@pytest.mark.parametrize(
    ("name", "method", "free"),
    [
        ("Llama-3.1-8B", FULL, 6),
        ("Llama-3.1-8B", FULL, 30),
        ("Llama-3.1-8B", DROPOUT, 60),
        ("SmolLM3-3B", FULL, 18),
        ("Qwen3-30B-A3B", FULL, 7),
    ],
)
def test_a_micro_batch_has_70_percent_of_the_tokens_that_fit(
    name: str, method: MethodRef, free: float
) -> None:
    choice = choose_micro_batch(estimated(name, method), USABLE * free * GIB, LENGTH)
    assert counted(name, method, choice.checkpointed, tokens=choice.tokens) <= free * GIB
    if choice.tokens < GPU_SLOTS:
        more = int(choice.tokens / 0.7)
        assert counted(name, method, choice.checkpointed, tokens=more) > free * GIB
