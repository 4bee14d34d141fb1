"""How much memory a rank needs at its peak, and which ZeRO stage fits. Pure; an estimate.

Bytes a parameter, trained in bf16 with AdamW: 2 weights, 4 gradients (accumulated in fp32), 12
optimizer (fp32 weights and two moments); in fp32 on CPU: 4, 4 and 8. ZeRO divides by the ranks:
the optimizer from stage 1, gradients from stage 2, weights from stage 3 (Rajbhandari et al. 2020,
table 1). Activations with gradient checkpointing: every layer's input, 34·tokens·hidden bytes of
the one layer that is computed again (Korthikanti et al. 2022, equation 2, without attention scores,
which flash kernels never store), and one chunk of logits.
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
DEFAULT_STAGE = 1  # where nobody knows the GPU's memory


@dataclass(frozen=True)
class ModelShape:
    """What the estimate needs to know of a base model."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any], weight_bytes: int | None) -> ModelShape | None:
        """From the config's text settings and the weight files' size; None: it says too little.

        Without the size the parameters are counted as a Llama's are.
        """

        def number(*names: str, default: int = 0) -> int:
            found = (config.get(name) for name in names)
            return next((value for value in found if isinstance(value, int) and value > 0), default)

        hidden, layers = (
            number("hidden_size", "n_embd", "d_model"),
            number("num_hidden_layers", "n_layer", "num_layers"),
        )
        vocabulary = number("vocab_size")
        if not (hidden and layers and vocabulary):
            return None
        width = BYTES_OF.get(str(config.get("torch_dtype") or config.get("dtype")), 2)
        if weight_bytes:
            return cls(weight_bytes // width, hidden, layers, vocabulary)
        heads = number("num_attention_heads", "n_head", default=1)
        shared = number("num_key_value_heads", default=heads) / heads
        inner = number("intermediate_size", "n_inner", default=4 * hidden)
        layer = hidden * hidden * (2 + 2 * shared) + 3 * hidden * inner + 2 * hidden
        tables = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
        return cls(int(layers * layer + tables), hidden, layers, vocabulary)


BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Plan:
    """How the ranks share the model, and the peak of one of them in bytes."""

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
    """The peak of one rank. tokens: of the longest micro-batch."""
    is_gpu = workers.accelerator == "nvidia"
    weight, gradient, optimizer = (2, 4, 12) if is_gpu else (4, 4, 8)
    ranks = workers.ranks
    trained = shape.parameters if method.type == "full" else _adapter(shape, method)
    weights = float(weight * shape.parameters)
    gradients, states = float(gradient * trained), float(optimizer * trained)
    if zero_stage >= 3:
        layer = weight * shape.parameters / shape.layers
        weights = weights / ranks + 2 * layer  # the layer at work, and the next one
    if zero_stage >= 2:
        gradients /= ranks
    if zero_stage >= 1:
        states /= ranks
    if offload != "none":
        states = 0.0
        gradients = gradients / 2 if zero_stage < 2 else 0.0  # in bf16, or moved bucket by bucket
    if offload == "parameters":
        weights = 2 * weight * shape.parameters / shape.layers
    peak = weights + gradients + states + _activations(shape, tokens, weight)
    return Plan(zero_stage, offload, peak + (CONTEXT_BYTES if is_gpu else 0))


def _adapter(shape: ModelShape, method: MethodRef) -> int:
    """Two thin matrices for each of a layer's seven linear ones, about three hidden sizes wide."""
    return shape.layers * 7 * method.rank * 3 * shape.hidden


def _activations(shape: ModelShape, tokens: int, width: int) -> float:
    layers = shape.layers * tokens * shape.hidden * width
    one = LAYER_FACTOR * tokens * shape.hidden * width / 2
    logits = min(tokens, CHUNK_TOKENS) * shape.vocabulary * (width + 4 + 4)
    return float(layers + one + logits)


def choose(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int
) -> Plan | None:
    """The first way that fits, from the fastest on; what the user fixed stays. None: none fits.

    Where the memory isn't known, or on CPU, nothing is refused, and nothing is offloaded unasked.
    """
    plans = list(_plans(shape, workers, method, tokens))
    limit = workers.gpu_memory_gib
    if workers.accelerator != "nvidia" or limit is None:
        wanted = DEFAULT_STAGE if workers.zero_stage is None else workers.zero_stage
        here = [plan for plan in plans if plan.offload == "none"] or plans
        return next((plan for plan in here if plan.zero_stage == wanted), here[0])
    return next((plan for plan in plans if plan.peak <= USABLE * limit * GIB), None)


def smallest(shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int) -> Plan:
    """Of the ways that the user left open, the one that needs the least."""
    return min(_plans(shape, workers, method, tokens), key=lambda plan: plan.peak)


def _plans(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int
) -> Iterator[Plan]:
    ways: list[tuple[int, Offload]] = [(0, "none"), (1, "none"), (2, "none"), (3, "none")]
    ways += [(stage, "optimizer") for stage in (1, 2, 3)] + [(3, "parameters")]
    offload = workers.offload
    if workers.ranks == 1:  # nothing is shared
        ways = [way for way in ways if way in {(0, "none"), (1, "optimizer"), (3, "parameters")}]
        if workers.zero_stage is not None:
            ways = [(workers.zero_stage, way[1]) for way in ways]
    chosen = [
        (stage, where)
        for stage, where in ways
        if workers.zero_stage in {None, stage} and offload in {None, where}
    ]
    if not chosen:  # a pair that is not on the list, but was asked for
        stage = DEFAULT_STAGE if workers.zero_stage is None else workers.zero_stage
        chosen = [(stage, offload or "none")]
    for stage, where in chosen:
        yield estimate(shape, workers, method, tokens=tokens, zero_stage=stage, offload=where)
