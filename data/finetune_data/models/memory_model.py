"""Estimates the peak memory of a rank, and chooses a ZeRO stage that fits. Pure.

Bytes per parameter, trained in bf16 with AdamW: 2 weights, 4 gradients (accumulated in fp32), 12
optimizer (fp32 weights and two moments); in fp32 on CPU: 4, 4 and 8. ZeRO divides by the ranks:
the optimizer from stage 1, gradients from stage 2, weights from stage 3 (Rajbhandari et al. 2020,
table 1). With an offloaded optimizer, ZeRO 1 still adds up all gradients on the GPU, and ZeRO 2
those of the rank's partition; only ZeRO 3 moves them to the host. Activations with gradient
checkpointing: every layer's input, 34·tokens·hidden bytes of the one layer that is recomputed
(Korthikanti et al. 2022, equation 2, without attention scores, which flash kernels never store),
and one chunk of logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.tasks import MethodRef, Offload, RankResources

GIB = 2**30
USABLE = 0.9  # of a GPU's memory: the rest is fragmentation and other libraries' buffers
CONTEXT_BYTES = 1.5 * GIB  # CUDA's and NCCL's own
CHUNK_TOKENS = 2048  # of logits at a time
LAYER_FACTOR = 34
DEFAULT_STAGE = 1  # if the memory of the GPU is not known


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a base model that the estimate needs."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    idle: int = 0  # of `parameters`: those of the experts that a token is not routed to

    @classmethod
    def of(cls, config: Mapping[str, Any], weight_bytes: int | None) -> ModelShape | None:
        """The shape from the config's text settings and the size of the weight files.

        None if the config lacks a number. Without the size, the parameters are counted like those
        of a Llama, Mixtral, or Qwen model.
        """
        hidden, layers = (
            _number(config, "hidden_size", "n_embd", "d_model"),
            _number(config, "num_hidden_layers", "n_layer", "num_layers"),
        )
        vocabulary = _number(config, "vocab_size")
        if not (hidden and layers and vocabulary):
            return None
        feed_forward, idle = _feed_forward(config, hidden, layers)
        if weight_bytes:
            width = BYTES_OF.get(str(config.get("torch_dtype") or config.get("dtype")), 2)
            return cls(weight_bytes // width, hidden, layers, vocabulary, idle)
        heads = _number(config, "num_attention_heads", "n_head", default=1)
        groups = _number(config, "num_key_value_heads", default=heads)
        head_width = _number(config, "head_dim", default=hidden // heads)
        attention = hidden * head_width * 2 * (heads + groups) + 2 * hidden
        tables = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
        return cls(layers * attention + feed_forward + tables, hidden, layers, vocabulary, idle)


def _number(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), default)


def _feed_forward(config: Mapping[str, Any], hidden: int, layers: int) -> tuple[int, int]:
    """The parameters of all feed-forward layers, and of the experts that a token does not use."""
    inner = _number(config, "intermediate_size", "n_inner", default=4 * hidden)
    dense = 3 * hidden * inner
    experts = _number(config, "num_local_experts", "num_experts", "n_routed_experts")
    if not experts:
        return layers * dense, 0
    one = 3 * hidden * _number(config, "moe_intermediate_size", default=inner)
    used = _number(config, "num_experts_per_tok", default=experts)
    shared = 3 * hidden * _number(config, "shared_expert_intermediate_size")
    shared += one * _number(config, "n_shared_experts")
    every, first = _number(config, "decoder_sparse_step", default=1), "first_k_dense_replace"
    dense_layers = set(config.get("mlp_only_layers") or ()) | set(range(_number(config, first)))
    sparse = sum(index not in dense_layers and (index + 1) % every == 0 for index in range(layers))
    total = sparse * (experts * one + shared + experts * hidden) + (layers - sparse) * dense
    return total, sparse * (experts - used) * one


BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Plan:
    """The distribution of a model over the ranks, and the peak memory of one rank in bytes."""

    zero_stage: int
    offload: Offload
    peak: float

    @property
    def gib(self) -> float:
        return round(self.peak / GIB, 2)


def estimate(
    shape: ModelShape,
    workers: RankResources,
    method: MethodRef,
    *,
    tokens: int,
    zero_stage: int,
    offload: Offload = "none",
) -> Plan:
    """The peak of one rank. tokens: the length of the longest micro-batch."""
    is_gpu = workers.accelerator == "nvidia"
    weight, gradient, optimizer = (2, 4, 12) if is_gpu else (4, 4, 8)
    ranks = workers.ranks
    trained = shape.parameters if method.type == "full" else _adapter(shape, method)
    weights = float(weight * shape.parameters)
    gradients, states = float(gradient * trained), float(optimizer * trained)
    if zero_stage >= 3:
        layer = weight * shape.parameters / shape.layers
        weights = weights / ranks + 2 * layer  # the current layer, and the next one
    if zero_stage >= 2:
        gradients /= ranks
    if zero_stage >= 1:
        states /= ranks
    if offload != "none":
        states = 0.0
        if zero_stage < 2:
            gradients += gradients / ranks  # all of them, and a copy of the rank's partition
        elif zero_stage == 3:
            gradients = 0.0  # moved to the host bucket by bucket
    if offload == "parameters":
        weights = 2 * weight * shape.parameters / shape.layers
    peak = weights + gradients + states + _activations(shape, tokens, weight)
    return Plan(zero_stage, offload, peak + (CONTEXT_BYTES if is_gpu else 0))


def _adapter(shape: ModelShape, method: MethodRef) -> int:
    """Parameters of LoRA: two thin matrices for each of a layer's seven linear layers.

    Both matrices together are about three hidden sizes wide.
    """
    return shape.layers * 7 * method.rank * 3 * shape.hidden


def _activations(shape: ModelShape, tokens: int, width: int) -> float:
    layers = shape.layers * tokens * shape.hidden * width
    one = LAYER_FACTOR * tokens * shape.hidden * width / 2
    logits = min(tokens, CHUNK_TOKENS) * shape.vocabulary * (width + 4 + 4)
    return float(layers + one + logits)


def choose_plan(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int
) -> Plan | None:
    """The fastest plan that fits and has the settings that the user fixed; None if none fits.

    On CPU, or if the memory of the GPU is not known, no plan is refused, and nothing is offloaded
    unless the user requests it.
    """
    plans = list(_plans(shape, workers, method, tokens))
    limit = workers.gpu_memory_gib
    if workers.accelerator != "nvidia" or limit is None:
        wanted = DEFAULT_STAGE if workers.zero_stage is None else workers.zero_stage
        here = [plan for plan in plans if plan.offload == "none"] or plans
        return next((plan for plan in here if plan.zero_stage == wanted), here[0])
    return next((plan for plan in plans if plan.peak <= USABLE * limit * GIB), None)


def smallest_plan(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int
) -> Plan:
    """The plan that needs the least memory and has the settings that the user fixed."""
    return min(_plans(shape, workers, method, tokens), key=lambda plan: plan.peak)


def _plans(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int
) -> Iterator[Plan]:
    modes: list[tuple[int, Offload]] = [(0, "none"), (1, "none"), (2, "none"), (3, "none")]
    modes += [(stage, "optimizer") for stage in (1, 2, 3)] + [(3, "parameters")]
    offload = workers.offload
    if workers.ranks == 1:  # nothing is shared
        modes = [
            mode
            for mode in modes
            if mode in {(0, "none"), (1, "optimizer"), (3, "optimizer"), (3, "parameters")}
        ]
        if workers.zero_stage is not None:
            modes = [(workers.zero_stage, mode[1]) for mode in modes]
    chosen = [
        (stage, where)
        for stage, where in modes
        if workers.zero_stage in {None, stage} and offload in {None, where}
    ]
    if not chosen:  # the user requests a combination that is not on the list
        stage = DEFAULT_STAGE if workers.zero_stage is None else workers.zero_stage
        chosen = [(stage, offload or "none")]
    for stage, where in chosen:
        yield estimate(shape, workers, method, tokens=tokens, zero_stage=stage, offload=where)
