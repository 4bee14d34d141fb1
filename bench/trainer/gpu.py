"""The section on GPUs: tokens per second and MFU of a 1B and an 8B shape with random weights.

The 8B shape trains an adapter, since one GPU has no memory for its optimizer. MFU is (6N, for an
adapter 4N, + 12·L·d·s)·tokens per second / the GPU's dense bf16 peak, where N are the parameters in
matrix products and s the attended tokens on average (see `finetune_trainer.engine.mfu`). Only real
tokens count.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.table import Line
from bench.trainer import workload
from bench.trainer.measurement import WARM_UP, Settings, run

SHAPES = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "heads": 32},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "heads": 32},
}
VOCABULARY = 128_256
WANTED = ">= 0.5"


def shapes(settings: Settings) -> Iterator[Line]:
    """Yields nothing on a machine without a GPU."""
    import torch

    if not torch.cuda.is_available():
        settings.print("this machine has no GPU: its section is skipped")
        return
    for name, shape in SHAPES.items():
        folder = workload.write(
            settings.folder / name, examples=4096, vocabulary=VOCABULARY, shape=shape
        )
        speeds, shares = [], []
        for number in range(settings.rounds):
            settings.print(f"{name} on {torch.cuda.get_device_name()}, round {number + 1}")
            found = run(
                *(Path(folder), "--steps", settings.steps(15), "--batch", 128, "--nvidia"),
                *(["--lora"] if name == "8B" else []),
            )
            seconds, tokens = found["seconds"][WARM_UP:], found["tokens"][WARM_UP:]
            speeds.append(sum(tokens) / sum(seconds))
            shares.append(speeds[-1] * (found["utilization_per_token"] or 0))
        yield Line("gpu", f"ours, {name}, real tokens", speeds, "tokens/s")
        middle = sorted(shares)[len(shares) // 2]
        yield Line("gpu", f"ours, {name}, MFU", shares, "of the peak", middle, WANTED)
