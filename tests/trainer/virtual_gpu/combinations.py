"""What is measured: models, ZeRO stages, offload modes, methods, and phases of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_api.tasks import MethodRef, Offload
from tests.support.cases import every_nth

CONFIG_OF = {1: "wide", 8: "wide", 16: "narrow"}  # by the number of ranks
MODES: tuple[tuple[int, Offload], ...] = (
    *((stage, "none") for stage in (1, 2, 3)),  # in bf16, the engine makes ZeRO 1 of ZeRO 0
    *((stage, "optimizer") for stage in (1, 2, 3)),
    (3, "parameters"),
)
METHODS = (MethodRef(), MethodRef(type="lora", rank=16, alpha=32))
PHASES = ("init", "backward", "boundary", "step", "resume")
CONFIGS: dict[str, dict[str, Any]] = {
    # matrices larger than a bucket, and a large vocabulary: like Llama 3.1 8B
    "wide": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 4,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    # matrices smaller than a bucket, and tied embeddings
    "narrow": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 8,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Combination:
    config: str
    stage: int
    offload: Offload
    method: MethodRef

    @property
    def key(self) -> str:
        return f"{self.config}, {self.method.type}, ZeRO {self.stage}, offload {self.offload}"


def combinations(ranks: int) -> list[Combination]:
    """Stages, offload modes, and methods, for one of the models.

    A third for each number of ranks, another one each time; all of them with `ALL_CASES=1`.
    """
    return every_nth(
        (
            Combination(CONFIG_OF[ranks], stage, offload, method)
            for stage, offload in MODES
            for method in METHODS
        ),
        len(CONFIG_OF),
        first=[16, 1, 8].index(ranks),
    )
