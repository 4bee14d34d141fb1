"""Estimates the activations of a micro-batch: what eager transformers layers keep, and the peak.

Each term is what torch saves for the backward pass, which tests compare with counts of the storages
that are alive (tests/trainer/memory). An RMSNorm keeps its input in fp32, a product both factors, a
linear layer its input if its weights are trained, FlashAttention its inputs, its output, and one
fp32 number per head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from finetune_api.tasks import MethodRef
from finetune_data.memory.families import Family, family_of
from finetune_data.memory.shape import ModelShape

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}  # fp32 logits of one chunk
CHUNK_LEAST, CHUNK_MOST = 32, 4096  # tokens
INDEX_BYTES = 8
WIDEST_HEAD = 256  # of FlashAttention
PYTHON_ACTIVATIONS = {"gelu_new", "gelu_fast", "gelu_python"}  # each operation keeps its inputs

# "flash": never stores scores; "masked": a kernel that reads a mask; "eager": stores all scores
Attention = Literal["flash", "masked", "eager"]


def chunk_tokens(vocabulary: int, chunk_bytes: float) -> int:
    """The number of tokens whose logits are computed at a time."""
    return min(CHUNK_MOST, max(CHUNK_LEAST, int(chunk_bytes) // (4 * vocabulary)))


def attention_of(shape: ModelShape, row: int) -> Attention:
    """How the trainer computes the attention for examples of at most `row` tokens."""
    family = family_of(shape.model_type)
    if shape.caps_scores:
        return "eager"
    if shape.window and shape.window < row:
        return "eager" if family.is_eager else "masked"
    return "flash"


@dataclass(frozen=True)
class Activations:
    """The activations of one rank, as functions of the tokens of a micro-batch."""

    shape: ModelShape
    method: MethodRef
    width: int  # bytes of a value: 2 on GPUs, 4 on CPU
    row: int  # tokens of the longest row; only kernels without FlashAttention depend on it
    attention: Attention = "flash"
    is_chunked: bool = True
    is_fused: bool = False  # an RMSNorm is one kernel, which keeps its input as it is
    chunk_bytes: float = field(default=CHUNK_BYTES["cuda"])

    # --- the whole model -------------------------------------------------------------------------

    def peak(self, tokens: int, checkpointed: int) -> float:
        """Bytes at the peak. checkpointed: the number of layers whose activations are recomputed.

        The first layers are checkpointed. Therefore, only if all of them are, the memory of a
        recomputed layer is in addition to that of the others.
        """
        shape = self.shape
        kept, fixed = self._kept_by(shape.layers - checkpointed)
        kept += checkpointed * self.stored + self._around
        recomputed, merged = 0.0, 0.0
        if checkpointed == shape.layers:
            recomputed, merged = max(self.kept) - self._stored_twice, self._merged
        final = self._norm(shape.hidden)
        phases = [
            self._head(tokens) + tokens * (final + 4 * self.stored),
            tokens * (final + self._norm_gradients),
            *(merged + size + tokens * (each + recomputed) for size, each in self._gradients),
        ]
        return tokens * kept + fixed + max(phases)

    def tokens_in(self, room: float, checkpointed: int) -> int:
        """The largest number of tokens with a peak of at most `room` bytes."""
        low, high = 0, 1
        while self.peak(high, checkpointed) <= room and high < 2**24:
            low, high = high, 2 * high
        while low + 1 < high:
            middle = (low + high) // 2
            if self.peak(middle, checkpointed) <= room:
                low = middle
            else:
                high = middle
        return low

    def _kept_by(self, layers: int) -> tuple[float, float]:
        """What `layers` layers keep: bytes per token, and bytes for any number of tokens.

        It is an upper bound: the layers that keep more count first.
        """
        dense, sparse = self.kept
        with_experts = self.shape.sparse_layers
        kinds = sorted(
            [(sparse, with_experts), (dense, self.shape.layers - with_experts)], reverse=True
        )
        first = min(layers, kinds[0][1])
        kept = first * kinds[0][0] + (layers - first) * kinds[1][0]
        return kept, min(layers, with_experts) * self._merged

    @property
    def _around(self) -> float:
        """Bytes per token outside of the layers: the batch, rotary embeddings, and masks."""
        masks = {"eager": 2 * self.width, "masked": 2}.get(self.attention, 0) * self.row
        return 7 * INDEX_BYTES + 2 * 4 * self.shape.head_size + masks

    def _head(self, tokens: int) -> float:
        """Bytes of the logits and of the head's gradient, which is summed in fp32."""
        shape, w = self.shape, self.width
        table = shape.vocabulary * shape.hidden if self._trains_all else 0
        if not self.is_chunked:
            per_logit = 12 + (2 * w if shape.caps_logits else 0)
            return float(per_logit * tokens * shape.vocabulary + w * table)
        chunk = min(tokens, chunk_tokens(shape.vocabulary, self.chunk_bytes)) * shape.vocabulary
        copy = w if w < 4 else 0
        per_logit = 12 if shape.caps_logits else 4 + copy
        products = copy * table
        return float(4 * table + max(per_logit * chunk, copy * chunk + products))

    # --- one layer, in bytes per token -----------------------------------------------------------

    @property
    def stored(self) -> float:
        """A checkpointed layer keeps its input."""
        return float(self.width * self.shape.hidden)

    @property
    def _stored_twice(self) -> float:
        """A linear layer may read the layer's input, which is stored already."""
        return 0.0 if self._family.norms_before or self.method.dropout else self.stored

    @cached_property
    def kept(self) -> tuple[float, float]:
        """What a dense layer, and one with experts, keep for their backward pass."""
        shape, family = self.shape, self._family
        norms = family.norms_before + family.norms_after
        rest = norms * self._norm(shape.hidden) + self._attention()
        if shape.has_dropout:  # masks of the attention and of the feed-forward layer
            rest += 2 * self._mask * shape.hidden
        sparse = rest + self._experts() if shape.experts else 0.0
        return rest + self._feed_forward(shape.inner), sparse

    @cached_property
    def _gradients(self) -> list[tuple[float, float]]:
        """The backward pass of a layer, next to what it keeps: gradients of weights, and per token.

        The gradient of a matrix exists until it is added to those of other micro-batches. That of
        a head that shares its weights with the embeddings waits for theirs.
        """
        shape, w = self.shape, self.width
        hidden, pairs = shape.hidden, shape.used_experts
        largest = w * hidden * shape.inner * self._trains_all
        phases: list[tuple[float, float]] = [(largest, w * (2 * hidden + 2 * shape.inner))]
        if self._family.norms_after:
            phases.append((0, self._norm_gradients))
        if self.attention == "eager":
            # fp32 gradients of the scores, after those of the feed-forward layer
            scores = 6 * self.row * shape.heads - self._feed_forward(shape.inner)
            phases.append((0, scores + 2 * w * hidden))
        if shape.experts:
            trained = self._trains_all or self._adapts_experts
            matrix = w * shape.experts * shape.expert_inner * hidden * trained
            values = pairs * shape.expert_inner
            phases += [
                (0, w * (2 + 3 * pairs) * hidden),
                (matrix, w * (2 * hidden + values)),
                (2 * matrix, w * (2 * hidden - 4 * values)),
            ]
        head = w * shape.vocabulary * hidden if shape.tied and self._trains_all else 0
        return [(float(head + matrix), float(each)) for matrix, each in phases]

    @property
    def _norm_gradients(self) -> float:
        """In the backward pass of a norm: of its output, and five fp32 tensors of an RMSNorm.

        A fused one has only the gradient of its input.
        """
        if self._is_norm_fused:
            return self.shape.hidden * 2 * self.width
        return self.shape.hidden * (self.width + (20 if self._family.norm != "layer" else 0))

    @property
    def _is_norm_fused(self) -> bool:
        return self.is_fused and self._family.norm != "layer"

    @property
    def _merged(self) -> float:
        """A layer's expert weights with their adapters, which peft adds up in each forward pass."""
        shape = self.shape
        if not self._adapts_experts:
            return 0.0
        return float(self.width * 3 * shape.experts * shape.expert_inner * shape.hidden)

    @property
    def _family(self) -> Family:
        return family_of(self.shape.model_type)

    @property
    def _trains_all(self) -> bool:
        return self.method.type == "full"

    @property
    def _adapts_experts(self) -> bool:
        return not self._trains_all and self._family.adapts_experts

    @property
    def _mask(self) -> int:
        """Bytes of a value of a dropout's mask, which is boolean on GPUs."""
        return 1 if self.width < 4 else self.width

    def _norm(self, size: int) -> float:
        if self._family.norm == "layer":
            return self.width * size + 8
        if self._is_norm_fused:
            return self.width * size + 4
        product = self.width if self._family.norm == "narrow" else 4
        return 4 * size + (product * size if self._trains_all else 0) + 4

    def _reads(self, size: int, layers: int, *, is_kept: bool = False) -> float:
        """The inputs of `layers` linear layers that read the same values.

        is_kept: another operation keeps the values, too.
        """
        w = self.width
        values = 0 if is_kept else w * size
        if self._trains_all:
            return values
        adapters = layers * self.method.rank * w
        if self.method.dropout:  # each adapter reads other values, and keeps a mask
            return adapters + layers * (w + self._mask) * size
        return adapters + values

    def _attention(self) -> float:
        shape, family, w = self.shape, self._family, self.width
        queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        repeated = queries if shape.kv_heads < shape.heads else keys
        kept = self._reads(shape.hidden, 1 if family.is_fused else 3)
        if family.normalizes_heads:
            kept += self._norm(queries) + self._norm(keys) + 4 * (shape.heads + shape.kv_heads)
        if family.is_fused:
            # the values are part of a larger tensor, and the output is copied
            kept += w * (2 * queries + keys)
        if self.attention == "flash" and not self._loops:
            kept += w * (2 * queries + 2 * keys) + 4 * shape.heads
            return kept + self._reads(queries, 1, is_kept=True)
        kept += self._reads(queries, 1)
        if self.attention == "eager":
            score = 4 + (w if w < 4 else 0) + (w if shape.caps_scores else 0)
            return kept + w * (queries + 2 * repeated) + score * self.row * shape.heads
        mask = w * self.row if self.attention == "masked" else 0
        return kept + w * (2 * queries + 2 * repeated) + 4 * shape.heads + mask

    @property
    def _loops(self) -> bool:
        """Whether the packed attention computes one example after the other."""
        return self.width == 4 or self.shape.drops_scores or self.shape.head_size > WIDEST_HEAD

    def _feed_forward(self, inner: int) -> float:
        shape, w = self.shape, self.width
        if self._family.is_gated:  # gate, activation, and the other factor
            return self._reads(shape.hidden, 2) + 3 * w * inner + self._reads(inner, 1)
        inside = 4 if shape.activation in PYTHON_ACTIVATIONS else 1
        return self._reads(shape.hidden, 1) + inside * w * inner + self._reads(inner, 1)

    def _experts(self) -> float:
        """The router, the experts of each token, and the experts that all tokens share."""
        shape, w = self.shape, self.width
        hidden, inner = shape.hidden, shape.expert_inner
        # gate and up, the activation, the output, and the order of the pairs
        pair = w * (hidden + 3 * inner) + 4 * INDEX_BYTES
        router = 4 * shape.experts + shape.used_experts * 2 * INDEX_BYTES
        if self._trains_all or self._adapts_experts:  # the inputs of all products
            pair += w * (hidden + inner)
            router += w * hidden
        shared = 0.0
        if shape.shared_inner:  # the output is multiplied by a gate
            shared = self._feed_forward(shape.shared_inner) + w * hidden
        return shape.used_experts * pair + router + shared


def activation_bytes(shape: ModelShape, method: MethodRef, tokens: int, width: int) -> float:
    """The least peak for one example of `tokens` tokens: all layers are checkpointed."""
    chunk = CHUNK_BYTES["cuda" if width < 4 else "cpu"]
    model = Activations(
        *(shape, method, width, tokens),
        attention=attention_of(shape, tokens),
        is_chunked=not family_of(shape.model_type).has_biased_head,
        chunk_bytes=chunk,
    )
    return model.peak(tokens, shape.layers)
