"""Measures the models of the page "What fits where" on a virtual GPU: `make measure-memory`

    python -m tests.trainer.memory.sweep [OUT] [--resume] [--ranks 8]

The file has every finished measurement, so that `--resume` continues an interrupted sweep, or
measures what a changed estimate needs in addition. If the versions of the libraries have changed,
it measures everything. The sweep takes about ten minutes of one core.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docs.generator.memory import CONFIGS, METHODS, TOKENS
from tests.trainer.memory.measured import PATH, Cell, cells
from tests.trainer.virtual_gpu.combinations import CONFIGS as MEASURED
from tests.trainer.virtual_gpu.combinations import Combination

if TYPE_CHECKING:
    from finetune_trainer.batching.microbatch import MicroBatch
    from finetune_trainer.engine.deepspeed import Engine
    from tests.trainer.virtual_gpu.live_bytes import LiveBytes

LIBRARIES = ("deepspeed", "peft", "torch", "transformers")


def versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def measure(cell: Cell, live: LiveBytes) -> dict[str, Any]:
    """The fields of `measured.Bytes`: bytes of the real engine with one example per micro-batch."""
    import numpy as np

    from finetune_data.read.examples import COMPLETION
    from finetune_trainer.batching.microbatch import arrange
    from finetune_trainer.engine import attention
    from finetune_trainer.engine.objective import ComputePath
    from tests.trainer.virtual_gpu.measure import start

    attention.register()
    gc.collect()
    before = dict(live.now)

    def device(values: Mapping[str, int]) -> int:
        return values["device"] - before.get("device", 0)

    def host(values: Mapping[str, int]) -> int:
        return sum(values[place] - before.get(place, 0) for place in ("host", "pinned"))

    model, method, ranks, stage, offload = cell.mode
    key = f"{model} with {cell.layers} layers"
    MEASURED[key] = CONFIGS[model] | {"num_hidden_layers": cell.layers}
    combination = Combination(key, stage, offload, METHODS[method])
    engine = start(combination, ranks, ComputePath(is_chunked=True, is_packed=True))
    gc.collect()
    begin, on_host = device(live.now), host(live.now)
    if not cell.has_steps:
        return {"start": begin, "host": on_host}
    peaks = []
    for tokens in TOKENS:
        example = (np.arange(tokens + 1), np.full(tokens + 1, COMPLETION, np.uint8))
        batch = arrange([example], packed=True, prompts=False)
        if stage == 3 and not peaks:  # it records the order of the layers in two passes
            _step(engine, batch, (False, True))
        live.reset()
        # in ZeRO 1 and 2, the second micro-batch of a step finds the gradients of the first one
        _step(engine, batch, (True,) if stage == 3 else (False, True))
        peaks.append(device(live.peak))
        on_host = max(on_host, host(live.peak))
    return {"start": begin, "device": peaks, "host": on_host}


def _step(engine: Engine, batch: MicroBatch, are_last: tuple[bool, ...]) -> None:
    for is_last in are_last:
        engine.backward(engine.predict(batch, 0.0)[0], is_last=is_last)
    engine.step(1e-4)


def measure_all(out: Path, missing: list[Cell]) -> None:
    """Measure cells with the same number of ranks: a process has one process group."""
    ranks = missing[0].mode.ranks
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks)}
    from tests.trainer import support
    from tests.trainer.virtual_gpu.device import virtual_gpu

    support.import_libraries()
    with virtual_gpu(ranks) as live:
        for cell in missing:
            found = measure(cell, live)
            print(cell.key, found, flush=True)
            values = read(out)
            values["bytes"][cell.key] = found
            write(out, values)


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def write(out: Path, values: dict[str, Any]) -> None:
    """One line per measurement, sorted, so that differences are readable."""
    parts = []
    for name, part in sorted(values.items()):
        lines = (f"  {json.dumps(key)}: {json.dumps(part[key])}" for key in sorted(part))
        parts.append(f' "{name}": {{\n' + ",\n".join(lines) + "\n }")
    new = out.with_suffix(".new")
    new.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    new.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=PATH, help="JSON file to write")
    parser.add_argument("--resume", action="store_true", help="keep the file's measurements")
    parser.add_argument("--ranks", type=int, help="only cells with this number of ranks")
    options = parser.parse_args()
    out: Path = options.out
    values = read(out) if options.resume and out.exists() else {}
    if values.get("versions") != versions():
        values = {"bytes": {}, "versions": versions()}
    wanted = cells()
    known = values["bytes"]
    missing = [
        cell
        for cell in wanted
        if cell.key not in known or (cell.has_steps and "device" not in known[cell.key])
    ]
    values["bytes"] = {cell.key: known[cell.key] for cell in wanted if cell not in missing}
    write(out, values)
    if options.ranks:
        measure_all(out, [cell for cell in missing if cell.mode.ranks == options.ranks])
        return
    for ranks in sorted({cell.mode.ranks for cell in missing}):
        command = [sys.executable, "-m", "tests.trainer.memory.sweep", str(out)]
        subprocess.run([*command, "--resume", "--ranks", str(ranks)], check=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
