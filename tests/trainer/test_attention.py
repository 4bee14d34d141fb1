"""The kernel of packed attention, with the keywords that each version of torch has."""

import inspect
from itertools import pairwise
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from finetune_trainer.engine.attention import Kernel, flash_attention, kernel, packed_attention

BOUNDS = (0, 5, 6, 14)
SCALING = 0.2


def attend(query: Any, key: Any, value: Any, starts: Any, scaling: float) -> Any:
    """The kernel's result, from whole score matrices in float64. query [length, heads, size]."""
    parts = []
    for begin, end in pairwise(starts.tolist()):
        q, k, v = (part[begin:end].double().transpose(0, 1) for part in (query, key, value))
        future = torch.ones(end - begin, end - begin, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(1, 2) * scaling).masked_fill(future, float("-inf"))
        parts.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


def with_groups(  # of torch 2.12 and later
    query: Any, key: Any, value: Any, starts: Any, keys: Any, longest: int, longest_key: int,
    *, scale: float, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Any:  # fmt: skip
    assert window_size == (-1, 0) and longest == longest_key == 8 and keys is starts
    assert enable_gqa == (query.shape[1] != key.shape[1])
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    return attend(query, key, value, starts, scale)


def with_a_window(  # without grouped heads
    query: Any, key: Any, value: Any, starts: Any, keys: Any, longest: int, longest_key: int,
    *, scale: float, window_size: tuple[int, int] = (-1, -1),
) -> Any:  # fmt: skip
    assert query.shape == key.shape and window_size == (-1, 0)
    return attend(query, key, value, starts, scale)


def with_a_flag(
    query: Any, key: Any, value: Any, starts: Any, keys: Any, longest: int, longest_key: int,
    is_causal: bool = False, *, scale: float,
) -> Any:  # fmt: skip
    assert query.shape == key.shape and is_causal
    return attend(query, key, value, starts, scale)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("function", [with_groups, with_a_window, with_a_flag])
def test_grouped_heads_are_right_with_the_kernel_of_each_version(
    function: Any, key_heads: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    query, key, value = (
        torch.randn(1, heads, BOUNDS[-1], 8, generator=generator)
        for heads in (4, key_heads, key_heads)
    )
    starts = torch.tensor(BOUNDS, dtype=torch.int32)
    found = flash_attention(Kernel.of(function), (query, key, value), SCALING, BOUNDS, starts)
    expected, _ = packed_attention(
        *(None, query, key, value, None), scaling=SCALING, bounds=BOUNDS, starts=starts
    )
    assert found.shape == expected.shape == (1, BOUNDS[-1], 4, 8)
    assert (found - expected).abs().max() < 1e-6


def test_the_installed_torch_takes_the_arguments_and_groups_heads_itself() -> None:
    own = kernel()
    assert own.takes_groups
    checked = create_autospec(own.attend)  # raises TypeError for arguments that it does not take
    checked.return_value = torch.zeros(BOUNDS[-1], 4, 8)
    query, key = torch.zeros(1, 4, BOUNDS[-1], 8), torch.zeros(1, 2, BOUNDS[-1], 8)
    starts = torch.tensor(BOUNDS, dtype=torch.int32)
    flash_attention(own._replace(attend=checked), (query, key, key), None, BOUNDS, starts)
    bound = (
        inspect.signature(own.attend)
        .bind(*checked.call_args.args, **checked.call_args.kwargs)
        .arguments
    )
    assert (bound["window_size"], bound["enable_gqa"], bound["max_q"]) == ((-1, 0), True, 8)
