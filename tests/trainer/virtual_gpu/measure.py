"""Measures the bytes of rank 0 in each phase of a training: `RANKS`

It prints one line of JSON per combination: key -> phase -> place (see `live_bytes`) -> bytes at
most.
"""

import gc
import json
import os
import sys
from typing import Any

import numpy as np
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

from finetune_data.read.examples import COMPLETION
from finetune_trainer.batching.microbatch import arrange
from finetune_trainer.engine.deepspeed import Engine, RankCoordinates
from finetune_trainer.engine.lora import add_adapter
from finetune_trainer.engine.memory_budget import enable_checkpointing
from finetune_trainer.engine.objective import ComputePath
from tests.trainer import support
from tests.trainer.virtual_gpu.combinations import CONFIGS, Combination, combinations
from tests.trainer.virtual_gpu.device import GPU, virtual_gpu
from tests.trainer.virtual_gpu.live_bytes import LiveBytes

STEPS = 2  # ZeRO 3 records the order of the layers in the first two passes
TOKENS = 8  # so few that activations do not count


def measure(combination: Combination, ranks: int, live: LiveBytes) -> dict[str, dict[str, int]]:
    """Bytes at most by phase and place, without those of earlier combinations."""
    example = (np.arange(TOKENS + 1), np.full(TOKENS + 1, COMPLETION, np.uint8))
    batch = arrange([example], packed=False, prompts=False)
    before = dict(live.now)
    found: dict[str, dict[str, int]] = {}

    def record(phase: str) -> None:
        gc.collect()
        known = found.setdefault(phase, {})
        for place, peak in live.peak.items():
            known[place] = max(known.get(place, 0), peak - before.get(place, 0))
        live.reset()

    engine = start(combination, ranks, ComputePath(is_chunked=True))
    live.reset()  # the test of loading covers how the model gets onto the GPU
    record("init")
    for _ in range(STEPS):
        for is_last in (False, True):
            engine.backward(engine.predict(batch, 0.0)[0], is_last=is_last)
            record("boundary" if is_last else "backward")
        engine.step(1e-4)
        record("step")
    engine.start_at(STEPS)
    record("resume")
    return found


def start(combination: Combination, ranks: int, path: ComputePath) -> Engine:
    """The engine with all layers checkpointed, before the first step."""
    engine = Engine(
        *(build(combination), RankCoordinates(0, 0, ranks)),
        zero_stage=combination.stage,
        precision="bf16",
        weight_decay=0.0,
        offload=combination.offload,
    )
    assert engine.device == torch.device(GPU, 0)
    engine.objective.choose(path)
    enable_checkpointing(engine.model)
    return engine


def build(combination: Combination) -> Any:
    """The model on the GPU, with an adapter for LoRA."""
    config = AutoConfig.for_model(**CONFIGS[combination.config], attn_implementation="eager")
    with torch.device(GPU):
        torch.set_default_dtype(torch.bfloat16)
        model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).train()
        torch.set_default_dtype(torch.float32)
        if combination.method.type == "lora":
            model = add_adapter(model, combination.method, seed=0)
    return model


def main(ranks: int) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks)}
    support.import_libraries()
    with virtual_gpu(ranks) as live:
        for combination in combinations(ranks):
            print(json.dumps({combination.key: measure(combination, ranks, live)}), flush=True)
            gc.collect()


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)
