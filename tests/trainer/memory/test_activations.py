"""The estimate of activations, compared with the storages that a forward and backward pass keeps.

A model has thousands of operations, but its layers are the same: two and three layers give the
memory of any number.
"""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.tasks import MethodRef
from finetune_data.memory.activations import CHUNK_BYTES, Activations, Attention
from finetune_data.memory.shape import ModelShape
from tests.trainer.memory.catalog import CONFIGS, PUBLISHED, config
from tests.trainer.memory.fake_objective import Counted, count, gpu_kernels

pytestmark = pytest.mark.slow  # torch and transformers build each model with fake tensors

MOST = 1.15
FULL = MethodRef()
LORA = MethodRef(type="lora", rank=16, alpha=32)
DROPOUT = LORA.replace(dropout=0.05)
METHODS = {"full": FULL, "LoRA": LORA, "LoRA with dropout": DROPOUT}


def counted(name: str, method: MethodRef, *, is_checkpointed: bool, **options: Any) -> Counted:
    """Bytes of the whole model, from those of two and of three layers."""
    few, more = (
        count(
            config(name, layers), method, checkpointed=layers if is_checkpointed else 0, **options
        )
        for layers in (2, 3)
    )
    rest = CONFIGS[name]["num_hidden_layers"] - 2
    return Counted(
        kept=few.kept + rest * (more.kept - few.kept), peak=few.peak + rest * (more.peak - few.peak)
    )


def estimated(name: str, method: MethodRef, row: int, attention: Attention = "flash") -> Any:
    shape = ModelShape.of(config(name).to_dict(), None)
    assert shape is not None
    return Activations(shape, method, 2, row, attention=attention)


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_estimate_is_never_below_and_at_most_15_percent_above(
    name: str, method: str, is_checkpointed: bool
) -> None:
    with gpu_kernels():
        found = counted(name, METHODS[method], is_checkpointed=is_checkpointed, tokens=4096)
    model = estimated(name, METHODS[method], 512)
    peak = model.peak(4096, model.shape.layers if is_checkpointed else 0)
    assert found.peak <= peak <= MOST * found.peak
