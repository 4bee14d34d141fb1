"""Counts the parameters of a LoRA adapter from the model's shape, as peft creates them."""

from __future__ import annotations

from finetune_api.tasks import MethodRef
from finetune_data.memory.families import FAMILIES, Family, family_of
from finetune_data.memory.shape import ModelShape

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
ROUTER, SHARED_GATE = "gate", "shared_expert_gate"


def adapter_parameters(shape: ModelShape, method: MethodRef) -> int:
    """The number of parameters of the adapter.

    An adapter of a linear layer has rank · (inputs + outputs) parameters. Target layers with other
    names than those of a Llama count as all layers, which is never too few.
    """
    dense = (shape.layers - shape.sparse_layers) * _width(_dense_layer(shape), method)
    sparse = shape.sparse_layers * _width(_sparse_layer(shape), method)
    return method.rank * (dense + sparse)


def adapts_experts(shape: ModelShape, method: MethodRef) -> bool:
    """Whether peft certainly adds an adapter to the experts or their router, by their names.

    Those of an unknown type may be plain linear layers.
    """
    family = FAMILIES.get(shape.model_type)
    if method.type == "full" or not shape.sparse_layers or family is None:
        return False
    return family.adapts_experts and (
        method.targets is None or not {*FEED_FORWARD, ROUTER}.isdisjoint(method.targets)
    )


def largest_matrix(shape: ModelShape, method: MethodRef) -> int:
    """The number of elements of the adapter's largest matrix, or slightly more."""
    family = family_of(shape.model_type)
    if shape.sparse_layers and family.adapts_experts:
        widest = 2 * max(2 * shape.expert_inner, shape.hidden)
        return method.rank * shape.experts * widest
    fused = 2 if family.is_fused else 1
    heads = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    return method.rank * max(shape.hidden, fused * shape.inner, shape.shared_inner, heads)


def _width(layers: dict[str, int], method: MethodRef) -> int:
    known = {*ATTENTION, *FEED_FORWARD, ROUTER, SHARED_GATE}
    if method.targets is None or not known.issuperset(method.targets):
        return sum(layers.values())
    return sum(width for name, width in layers.items() if name in method.targets)


def _attention(shape: ModelShape, family: Family) -> dict[str, int]:
    """Inputs plus outputs by name of a linear layer."""
    hidden = shape.hidden
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    widths = (hidden + queries, hidden + keys, hidden + keys, queries + hidden)
    if _is_fused(shape, family):  # one layer for queries, keys, and values
        widths = (hidden + queries + 2 * keys, 0, 0, queries + hidden)
    return dict(zip(ATTENTION, widths, strict=True))


def _feed_forward(shape: ModelShape, family: Family, inner: int) -> dict[str, int]:
    width = shape.hidden + inner
    if not family.is_gated:
        return {"up_proj": width, "down_proj": width}
    if _is_fused(shape, family):  # one layer for the gate and its factor
        return {"up_proj": width + inner, "down_proj": width}
    return dict.fromkeys(FEED_FORWARD, width)


def _is_fused(shape: ModelShape, family: Family) -> bool:
    """Separate layers have more adapters, which is the assumption for an unknown type."""
    return family.is_fused and shape.model_type in FAMILIES


def _dense_layer(shape: ModelShape) -> dict[str, int]:
    family = family_of(shape.model_type)
    return _attention(shape, family) | _feed_forward(shape, family, shape.inner)


def _sparse_layer(shape: ModelShape) -> dict[str, int]:
    """A layer with experts.

    transformers keeps the experts of a layer in two parameters, one for the gate and its factor.
    peft gives the adapter of that one twice the rank.
    """
    family = family_of(shape.model_type)
    found = _attention(shape, family)
    hidden, inner, experts = shape.hidden, shape.expert_inner, shape.experts
    if shape.shared_inner:
        found |= _feed_forward(shape, family, shape.shared_inner)
        found[SHARED_GATE] = hidden + 1
    if family.adapts_experts:
        found[ROUTER] = hidden + experts
        widths = {"gate_proj": 2 * (hidden + 2 * inner), "down_proj": inner + hidden}
        for name, width in widths.items():
            found[name] = found.get(name, 0) + experts * width
    return found
