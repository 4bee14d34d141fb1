"""The parts of the program, the most valuable first, with their time limits on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NO_SEGMENTS = {"PYTORCH_ALLOC_CONF": "expandable_segments:False"}
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # cuBLAS requires it


@dataclass(frozen=True)
class Part:
    """One process: `measure(device, **options)` of the module in `bench.gpu`."""

    name: str
    title: str
    module: str
    seconds: int  # limit, with the imports
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


PARTS = (
    Part(
        "attention",
        "ceilings of the card; packed attention against float64, with its gradients",
        "attention",
        60,
    ),
    Part(
        "parity",
        "losses of all compute paths against fp32; the gradient of ZeRO 0 to 3 against float64",
        "parity",
        75,
        environment=DETERMINISTIC,
    ),
    Part(
        "bytes", "bytes per parameter of ZeRO 1 to 3, against the estimate", "parameter_bytes", 75
    ),
    Part(
        "1b-full",
        "1B, all weights: tokens per second, MFU, and peak memory",
        "speed",
        75,
        {"model": "1B", "lengths": (2048, 512, None)},
    ),
    Part(
        "8b-lora",
        "8B, LoRA",
        "speed",
        90,
        {"model": "8B", "method": "lora", "lengths": (2048,), "steps": 6},
    ),
    Part("trl", "TRL with packing, on the rows of 1b-full", "trl", 90),
    Part(
        "3b-full",
        "3B, all weights",
        "speed",
        70,
        {"model": "3B", "lengths": (2048,), "steps": 6},
    ),
    Part("checkpoint", "a checkpoint's copy, upload, and restore; losses after it", "resume", 75),
    Part(
        "out-of-memory",
        "a pod with micro-batches that do not fit, and its next attempt",
        "memory_retry",
        90,
    ),
    Part(
        "publish", "publishing an 8B model with an adapter: memory and seconds", "publishing", 150
    ),
    Part(
        "offload",
        "3B, ZeRO 3 with the optimizer in host memory",
        "speed",
        90,
        {"model": "3B", "lengths": (2048,), "steps": 2, "zero_stage": 3, "offload": "optimizer"},
    ),
    Part(
        "8b-lora-dropout",
        "8B, LoRA with dropout",
        "speed",
        80,
        {"model": "8B", "method": "lora", "dropout": 0.05, "lengths": (2048,), "steps": 4},
    ),
    Part("profile", "a profile of two steps: the longest kernels, and gaps", "profile", 60),
    Part(
        "1b-segments",
        "1B, all weights, without expandable segments",
        "speed",
        60,
        {"model": "1B", "lengths": (None,)},
        NO_SEGMENTS,
    ),
    # the last: it needs no GPU, and can run on another machine with the same file
    Part("roofline", "the limit of each measured speed", "limits", 90),
)
NAMES = tuple(part.name for part in PARTS)


def find(name: str) -> Part:
    return next(part for part in PARTS if part.name == name)
