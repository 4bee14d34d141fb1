"""Attention for examples that share a row: each attends to itself only, without a mask.

It is registered with transformers by name, and the model's own code calls it. `bounds` is passed
through the model's keyword arguments: the start of each example in the row, and the row's end.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

NAME = "finetune_packed"


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

    is_half = query.dtype in {torch.bfloat16, torch.float16}
    if query.is_cuda and is_half and dropout == 0 and query.shape[-1] <= 256:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        longest = max(end - begin for begin, end in pairwise(bounds))
        found = varlen_attn(
            *(q, k, v, starts, starts, longest, longest),
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        assert not isinstance(found, tuple)
        return found.unsqueeze(0), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    sizes = [end - begin for begin, end in pairwise(bounds)]
    # the backward of split is one concatenation; that of a slice fills the whole row each time
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            *one, dropout_p=dropout, is_causal=True, scale=scaling
        )
        for one in zip(*(part.split(sizes, 2) for part in (query, key, value)), strict=True)
    ]
    return torch.cat([part.transpose(1, 2) for part in parts], 1), None


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
