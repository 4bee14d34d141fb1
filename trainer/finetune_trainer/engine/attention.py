"""Attention for examples that share a row: each attends to itself only, without a mask.

It is registered with transformers by name, and the model's own code calls it. `bounds` is passed
through the model's keyword arguments: the start of each example in the row, and the row's end.
"""

from collections.abc import Callable
from functools import cache
from inspect import signature
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

NAME = "finetune_packed"
WIDEST_HEAD = 256  # of FlashAttention


class Kernel(NamedTuple):
    """FlashAttention's kernel for rows of several examples, as this version of torch offers it."""

    attend: Callable[..., Any]  # torch.nn.attention.varlen.varlen_attn
    causal: dict[str, Any]  # the arguments for causal attention, which differ between versions
    takes_groups: bool  # whether key and value may have fewer heads than query

    @classmethod
    def of(cls, attend: Callable[..., Any]) -> "Kernel":
        names = signature(attend).parameters
        causal = {"window_size": (-1, 0)} if "window_size" in names else {"is_causal": True}
        return cls(attend, causal, "enable_gqa" in names)


@cache
def kernel() -> Kernel:
    from torch.nn.attention.varlen import varlen_attn

    return Kernel.of(varlen_attn)


def register() -> None:
    """Register with transformers, which builds no mask for an attention that it does not know."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(  # noqa: PLR0917 - the signature that transformers calls
    module: Any,
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attention_mask: "Tensor | None",
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    bounds: tuple[int, ...],
    starts: "Tensor",
    **others: Any,
) -> tuple["Tensor", None]:
    """query [1, heads, length, size], key and value with as many or fewer heads.

    starts: `bounds` as int32 on the device. Returns [1, length, heads, size], causal in each
    example.
    """
    import torch

    if has_kernel(query, dropout):
        return flash_attention(kernel(), (query, key, value), scaling, bounds, starts), None
    key, value = (_with_heads(part, query.shape[1]) for part in (key, value))
    sizes = [end - begin for begin, end in pairwise(bounds)]
    # the backward of split is one concatenation; that of a slice fills the whole row each time
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            *one, dropout_p=dropout, is_causal=True, scale=scaling
        )
        for one in zip(*(part.split(sizes, 2) for part in (query, key, value)), strict=True)
    ]
    return torch.cat([part.transpose(1, 2) for part in parts], 1), None


def flash_attention(
    kernel: Kernel,
    parts: tuple["Tensor", "Tensor", "Tensor"],
    scaling: float | None,
    bounds: tuple[int, ...],
    starts: "Tensor",
) -> "Tensor":
    """parts: query, key, and value, as of `packed_attention`, which has the same result."""
    query, key, value = parts
    grouped = {}
    if query.shape[1] != key.shape[1]:
        if kernel.takes_groups:
            grouped = {"enable_gqa": True}
        else:
            key, value = (_with_heads(part, query.shape[1]) for part in (key, value))
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    longest = max(end - begin for begin, end in pairwise(bounds))
    found: Tensor = kernel.attend(
        *(q, k, v, starts, starts, longest, longest), scale=scaling, **kernel.causal, **grouped
    )
    assert not isinstance(found, tuple)
    return found.unsqueeze(0)


def _with_heads(part: "Tensor", heads: int) -> "Tensor":
    """Repeat the heads of a key or value [1, heads, length, size], each for its group."""
    groups = heads // part.shape[1]
    return part.repeat_interleave(groups, 1) if groups > 1 else part


def has_kernel(query: "Tensor", dropout: float) -> bool:
    """Whether FlashAttention's variable-length kernel takes the query [..., size]."""
    import torch

    is_half = query.dtype in {torch.bfloat16, torch.float16}
    return query.is_cuda and is_half and dropout == 0 and query.shape[-1] <= WIDEST_HEAD


def is_plain(config: Any, longest: int) -> bool:
    """Whether the model's attention is a plain softmax over all earlier tokens.

    longest: tokens of the longest example; a window of at least this size has no effect.
    """
    window = getattr(config, "sliding_window", None)
    if window and window < longest and getattr(config, "use_sliding_window", True):
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention", "sliding_attention"}:
        return False
    return not getattr(config, "attn_logit_softcapping", None)
