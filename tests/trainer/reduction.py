"""The computations of `test_reduction`, run by the ranks of a torchrun: `OUT`

Each rank accumulates several micro-batches in bf16, for every ZeRO stage and offload mode. Rank 0
writes the distance of the reduced gradient from the float64 sum of all ranks' bf16 gradients.
"""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

from finetune_trainer.batching.microbatch import MicroBatch, assemble
from finetune_trainer.engine import deepspeed as engine_module
from finetune_trainer.engine.deepspeed import Engine, RankCoordinates, connect
from finetune_trainer.engine.objective import Objective, arguments
from tests.trainer import support

MODES = [
    *((stage, "none") for stage in range(4)),
    *((stage, "optimizer") for stage in (1, 2, 3)),
    (3, "parameters"),
]
BUCKETS = (engine_module.BUCKET, 1500)  # all parameters, or fewer elements than some of them have
STEPS = 2  # the second one starts with the buffers of the first
MICRO_BATCHES = 5  # of each rank and step
ROWS = 3


def own_batches(coordinates: RankCoordinates, step: int) -> list[MicroBatch]:
    """Other examples in each micro-batch, on each rank, and in each step."""
    split = support.split_of(support.random_examples(96, seed=5))
    first = (step * coordinates.ranks + coordinates.rank) * MICRO_BATCHES * ROWS
    starts = range(first, first + MICRO_BATCHES * ROWS, ROWS)
    parts = [list(range(start, start + ROWS)) for start in starts]
    return [assemble(split, part, packed=False, prompts=True) for part in parts]


def expected_gradients(model: Any, engine: Engine, batches: list[MicroBatch]) -> dict[str, Any]:
    """The float64 mean over the ranks of the sums of bf16 micro-batch gradients."""
    import torch

    objective = Objective(model)
    sums = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in model.named_parameters()}
    for batch in batches:
        objective(*arguments(batch, 0.1, engine.device))[0].backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad.double()
            parameter.grad = None
    return {name: engine.sum(total) / engine.coordinates.ranks for name, total in sums.items()}


def distances(
    coordinates: RankCoordinates, stage: int, offload: str, *, overlaps: bool = False
) -> list[float]:
    """The relative distances of the reduced gradient, one for each step."""
    import torch

    model = support.tiny_llama().to(torch.bfloat16).train()
    twin = copy.deepcopy(model)
    engine = Engine(
        *(model, coordinates),
        zero_stage=stage,
        precision="bf16",
        weight_decay=0.01,
        offload=offload,
        overlaps=overlaps,
    )
    found = []
    for step in range(STEPS):
        batches = own_batches(coordinates, step)
        expected = expected_gradients(twin, engine, batches)
        for index, batch in enumerate(batches):
            loss = engine.predict(batch, 0.1)[0]
            engine.backward(loss, is_last=index == len(batches) - 1)
        actual = {name: engine.gradient(p).double() for name, p in engine.parameters()}
        differences = [(actual[n].view_as(e) - e).flatten() for n, e in expected.items()]
        whole = torch.cat([e.flatten() for e in expected.values()])
        found.append(float(torch.cat(differences).norm() / whole.norm()))
        engine.step(0.0)  # changes no weight, and clears the gradients
    return found


def main(out: Path) -> None:
    support.import_libraries()
    coordinates = RankCoordinates.from_environment()
    connect("cpu")
    found = {}
    for bucket in BUCKETS:
        engine_module.BUCKET = engine_module.SUB_GROUP = bucket
        for stage, offload in MODES:
            found[f"{stage}-{offload}-{bucket}"] = distances(coordinates, stage, offload)
    # CPUs have no streams: this shows that DeepSpeed takes the setting, not that GPUs are right
    found["3-overlap"] = distances(coordinates, 3, "none", overlaps=True)
    assert "torch._inductor.compile_fx" not in sys.modules, "an engine imported torch's compiler"
    if coordinates.rank == 0:
        (out / f"{coordinates.ranks}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # as in `rank.main`: a regular exit may abort in threads of gloo
