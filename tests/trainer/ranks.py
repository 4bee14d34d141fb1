"""The computations of `test_ranks`, run by the ranks of a torchrun: `OUT curves|gradients`

All ranks run everything with DeepSpeed over gloo; rank 0 writes the results.
"""

import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.tasks import MethodRef
from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from finetune_trainer.batching.microbatch import MicroBatch, assemble, total_weight
from finetune_trainer.batching.order import Costs
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.checkpoint.store import Checkpoints
from finetune_trainer.engine import attention
from finetune_trainer.engine.deepspeed import Engine, Precision, RankCoordinates, connect
from finetune_trainer.engine.lora import add_adapter, is_adapted
from finetune_trainer.engine.lr_schedule import learning_rate
from finetune_trainer.engine.objective import ComputePath
from finetune_trainer.publishing.weights import write_model
from finetune_trainer.step import stepper
from finetune_trainer.step.stepper import Stepper, target_counts
from tests.support.cases import ALL_CASES, every_nth
from tests.trainer import support

STEPS = 20
SAVED = 10  # the checkpoint of the curves
PROMPT_WEIGHT = 0.1
EXAMPLES = support.random_examples(72, seed=3, longest=40)  # 9 steps of 8
# One completion of 500 tokens and seven of one token: a mean of means is far off.
SKEWED: list[support.Example] = [
    ([5, 6, 7], [3 + i % 60 for i in range(499)] + [2]),
    *(([10 + i, 11, 12 + i], [20 + i]) for i in range(7)),
]


def engine_of(coordinates: RankCoordinates, zero_stage: int, precision: Precision) -> Engine:
    import torch

    model = support.tiny_llama()
    if precision == "bf16":
        model.to(torch.bfloat16)
    model.train()
    return Engine(
        model, coordinates, zero_stage=zero_stage, precision=precision, weight_decay=0.01, clip=1.0
    )


LORA = MethodRef(type="lora", rank=4, alpha=16)


def adapted_engine(coordinates: RankCoordinates, zero_stage: int) -> Engine:
    """Like `engine_of`, with all weights frozen except those of an adapter."""
    model = add_adapter(support.tiny_llama(), LORA, seed=42)
    model.train()
    return Engine(model, coordinates, zero_stage=zero_stage, precision="fp32", weight_decay=0.01)


def curve(engine: Engine, storage: Storage, folder: Path) -> dict[str, Any]:
    """The losses of 20 steps, and of the last ten resumed from the checkpoints of several runs."""
    adapted = "lora" if is_adapted(engine.model) else ""
    kind, ranks = f"{adapted}{engine.precision}{engine.zero_stage}", engine.coordinates.ranks
    saved = checkpoints(f"{kind}w{ranks}", storage, engine, folder)
    found: dict[str, Any] = {"straight": run_steps(engine, saved, TrainingState())}
    for origin in (1, 2):
        # the engine is at step 20, so that incomplete restores are visible
        state = checkpoints(f"{kind}w{origin}", storage, engine, folder).restore()
        if state.step == SAVED:
            found[f"resumed from {origin}"] = run_steps(engine, None, state)
    return found


def checkpoints(uid: str, storage: Storage, engine: Engine, folder: Path) -> Checkpoints:
    task = support.train_task(uid)
    return Checkpoints(task.run.layout, storage, engine, folder, attempt=1)


def run_steps(
    engine: Engine, saved: Checkpoints | None, state: TrainingState
) -> list[tuple[float | None, float]]:
    task = support.train_task("curve", training_examples=len(EXAMPLES))
    stepper = Stepper(task, engine, support.split_of(EXAMPLES), Costs(slots=64, overhead=8))
    found = []
    while state.step < STEPS:
        step = state.step + 1
        totals, batch, _ = stepper.accumulate(step)
        rate = learning_rate(step, steps=STEPS, peak=3e-3, warmup_ratio=0.1, schedule="cosine")
        found.append((totals.loss, engine.step(rate)))
        state = state.after_step(totals, batch.tokens, batch.examples)
        if saved is not None and step == SAVED:
            saved.begin(state)
    if saved is not None:
        assert saved.finish() is not None  # uploaded during ten more steps
    return found


COMPUTE_PATHS = {
    "whole-padded": ComputePath(),
    "chunked-padded": ComputePath(is_chunked=True),
    "chunked-packed": ComputePath(is_chunked=True, is_packed=True),
}


BATCHES = {"even": EXAMPLES[:8], "skewed": SKEWED}
CUTS = (8, 4, 1)  # rows of a micro-batch: 1x8, 2x4, 8x1
MANY = 4  # ranks, for gradients only
BF16_STAGES = every_nth((2, 1, 3), 3)
LORA_STAGES = (0, 2, 3) if ALL_CASES else (0, 3)


def exact_cases(precision: Precision, ranks: int) -> list[tuple[str, int, str]]:
    """The batches, cuts, and compute paths whose gradients are compared."""
    cuts = CUTS if precision == "fp32" else (4,)
    return every_nth(itertools.product(BATCHES, cuts, COMPUTE_PATHS), 5 if ranks == MANY else 1)


def gradients(engine: Engine, folder: Path) -> None:
    """The gradient of one step for each compute path and cut, and of a mean of means."""
    from safetensors.torch import save_file

    ranks = engine.coordinates.ranks
    wrong = ranks != MANY and engine.precision == "fp32"
    for name, examples in BATCHES.items():
        split = support.split_of(examples)
        prompts, completions = target_counts(split).sum(0)
        weight = total_weight(prompts, completions, PROMPT_WEIGHT)
        cases = [
            (path, rows)
            for batch, rows, path in exact_cases(engine.precision, ranks)
            if batch == name
        ]
        cases += [("mean-of-means", rows) for rows in (4, 1) if wrong]
        for kind, rows_each in cases:
            engine.objective.choose(COMPUTE_PATHS.get(kind, ComputePath()))
            mine = [
                assemble(split, part, packed=engine.compute_path.is_packed, prompts=True)
                for part in cut(len(examples), engine.coordinates, rows_each)
            ]
            if kind == "mean-of-means":
                mean_of_means(engine, mine)
            else:
                stepper.accumulate(engine, mine, PROMPT_WEIGHT, weight)
            whole = {n: engine.gradient(p).float().clone() for n, p in engine.parameters()}
            engine.step(0.0)  # changes no weight, and clears the gradients
            if engine.coordinates.rank == 0:
                where = f"{engine.precision}-{engine.zero_stage}-{ranks}"
                save_file(whole, folder / f"{where}-{name}-{rows_each}-{kind}.safetensors")
    engine.start_at(0)


def cut(examples: int, coordinates: RankCoordinates, rows_each: int) -> list[list[int]]:
    """Micro-batches of `rows_each` over all ranks: 1x8, 2x4, 8x1; padded with empty rows."""
    parts = [list(range(i, i + rows_each)) for i in range(0, examples, rows_each)]
    parts += [[]] * (-len(parts) % coordinates.ranks)
    each = len(parts) // coordinates.ranks
    return parts[coordinates.rank * each : (coordinates.rank + 1) * each]


def mean_of_means(engine: Engine, own: Sequence[MicroBatch]) -> None:
    """The mean of the micro-batches' means, as many trainers computed it for years."""
    for index, batch in enumerate(own):
        objective = engine.predict(batch, PROMPT_WEIGHT)[0]
        weight = batch.weight(PROMPT_WEIGHT) or 1.0
        engine.backward(objective / weight / len(own), is_last=index == len(own) - 1)


def save_logits(engine: Engine, path: Path) -> None:
    """Save the logits of the model with its trained adapter."""
    import torch
    from safetensors.torch import save_file

    engine.model.eval()
    tokens = torch.tensor([EXAMPLES[0][0] + EXAMPLES[0][1]])
    engine.objective.choose(ComputePath())
    with torch.no_grad():
        logits = engine.model(input_ids=tokens[:, :-1], use_cache=False).logits
        save_file({"tokens": tokens, "logits": logits}, path)
    engine.model.train()


def publish(engine: Engine, folder: Path) -> None:
    """Write the trained model, and the same one with `save_pretrained` from gathered weights."""
    import torch

    write_model(engine, folder / "found", folder, shard_size="20KB")
    weights = {name: engine.read_weights(p).clone() for name, p in engine.parameters()}
    if engine.coordinates.rank == 0:
        model = support.tiny_llama()
        model.load_state_dict(weights)
        dtype = torch.bfloat16 if engine.precision == "bf16" else torch.float32
        model.to(dtype).save_pretrained(folder / "right", max_shard_size="20KB")


def main(out: Path, *, has_curves: bool) -> None:
    support.import_libraries()
    attention.register()
    coordinates = RankCoordinates.from_environment()
    connect("cpu")
    storage = open_storage()
    found: dict[str, Any] = {}
    kinds: list[tuple[Precision, int]] = [("fp32", stage) for stage in range(4)]
    kinds += [("bf16", stage) for stage in BF16_STAGES]
    for precision, zero_stage in kinds:
        engine = engine_of(coordinates, zero_stage, precision)
        gradients(engine, out)
        if has_curves:
            engine.objective.choose(ComputePath(is_chunked=True, is_packed=True))
            found[f"{precision} {zero_stage}"] = curve(engine, storage, out / "checkpoints")
            publish(engine, out / f"full-{precision}-{zero_stage}-{coordinates.ranks}")
    if not has_curves:
        return
    if coordinates.rank == 0:
        support.tiny_llama().save_pretrained(out / "base")
    for zero_stage in LORA_STAGES:
        engine = adapted_engine(coordinates, zero_stage)
        engine.objective.choose(ComputePath(is_chunked=True, is_packed=zero_stage != 2))
        found[f"lora {zero_stage}"] = curve(engine, storage, out / "checkpoints")
        write_model(engine, out / f"lora-{zero_stage}-{coordinates.ranks}", out / "base")
        if coordinates.rank == 0 and zero_stage == 0:
            save_logits(engine, out / f"lora-logits-{coordinates.ranks}.safetensors")
    if coordinates.rank == 0:
        (out / f"curves-{coordinates.ranks}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), has_curves=sys.argv[2] == "curves")
    os._exit(0)  # as in `rank.main`: a regular exit may abort in threads of gloo
