"""The computations of `test_loading_ranks`, run by the ranks of a torchrun: `OUT`

Each rank writes its results to `OUT/RANKS-RANK.json`. The models are in `OUT/models`.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.tasks import MethodRef
from finetune_trainer.checkpoint.snapshot import state_of
from finetune_trainer.engine import loading
from finetune_trainer.engine.compute_path import choose_compute_path
from finetune_trainer.engine.deepspeed import Engine, Precision, RankCoordinates, connect
from finetune_trainer.engine.loading import load_for_training, load_model
from finetune_trainer.engine.lora import add_adapter
from finetune_trainer.publishing.weights import write_model
from finetune_trainer.step import stepper
from finetune_trainer.step.stepper import own_batches, target_counts
from tests.trainer import support
from tests.trainer.loaded import differences, expected_state, state_of_model

LORA = MethodRef(type="lora", rank=4, alpha=16, dropout=0.0)


@dataclass(frozen=True)
class Run:
    """How a partitioned model is trained."""

    model: str
    precision: Precision
    offload: str
    is_adapted: bool


RUNS = [
    Run("tied llama", "fp32", "none", is_adapted=False),
    Run("llama", "bf16", "parameters", is_adapted=True),
    Run("gpt2", "fp32", "optimizer", is_adapted=True),
    Run("qwen3_moe", "bf16", "none", is_adapted=False),
    Run("mixtral", "fp32", "none", is_adapted=True),
    Run("gemma3", "bf16", "parameters", is_adapted=False),
    Run("phi, whose head has a bias", "fp32", "none", is_adapted=False),
]
# One rank holds whole parameters, and the sizes of many are not multiples of three.
RUNS_OF = {1: RUNS[:2], 2: RUNS, 3: [RUNS[1], RUNS[3], RUNS[6]]}
UNCONVERTED = ("llama", "gpt2", "mixtral", "tied weights")  # also loaded in the files' precision


def partitioned(
    folder: Path,
    precision: Precision,
    ranks: int,
    offload: str = "none",
    *,
    is_frozen: bool = False,
) -> Any:
    return load_for_training(
        *(folder, precision), zero_stage=3, offload=offload, ranks=ranks, is_frozen=is_frozen
    )


def check_weights(folder: Path, precision: Precision, coordinates: RankCoordinates) -> list[str]:
    """The differences of the gathered weights and of the buffers from transformers' own."""
    import torch
    from deepspeed.runtime.zero import GatheredParameters

    model = partitioned(folder, precision, coordinates.ranks)
    whole = [name for name, parameter in model.named_parameters() if parameter.numel()]
    with GatheredParameters(list(model.parameters())), torch.no_grad():
        found = differences(state_of_model(model), expected_state(folder, precision))
    return [*found, *(f"{name} is not partitioned" for name in whole)]


@contextmanager
def counted_moves() -> Iterator[list[int]]:
    """The bytes of the tensors of each module that `Module.to` moves."""
    import torch

    sizes: list[int] = []
    original = torch.nn.Module.to

    def to(module: Any, *args: Any, **named: Any) -> Any:
        tensors = [*module.parameters(), *module.buffers()]
        sizes.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
        return original(module, *args, **named)

    torch.nn.Module.to = to  # type: ignore[method-assign]
    try:
        yield sizes
    finally:
        torch.nn.Module.to = original  # type: ignore[method-assign]


@contextmanager
def counted_pins() -> Iterator[list[int]]:
    """The numbers of elements of the tensors that DeepSpeed pins in host memory."""
    from deepspeed.accelerator import get_accelerator

    sizes: list[int] = []
    accelerator = get_accelerator()
    original = accelerator.pin_memory

    def pin(tensor: Any, *args: Any, **named: Any) -> Any:
        sizes.append(tensor.numel())
        return original(tensor, *args, **named)

    accelerator.pin_memory = pin
    try:
        yield sizes
    finally:
        accelerator.pin_memory = original


def train(
    model: Any,
    coordinates: RankCoordinates,
    run: Run,
    published: tuple[Path, Path],
) -> dict[str, Any]:
    """What follows from the weights: paths, losses, gradients, a checkpoint, a published model.

    published: the folder to publish to, and the base model.
    """
    import torch

    with counted_moves() as moved:
        engine = Engine(
            *(model, coordinates),
            zero_stage=3,
            precision=run.precision,
            weight_decay=0.1,
            offload=run.offload,
        )
    warnings: list[str] = []
    path = choose_compute_path(engine, longest=40, warn=warnings.append)
    examples = support.random_examples(8, seed=3)
    split = support.split_of(examples)
    task = support.train_task("loading", training_examples=len(examples))
    costs = stepper.Costs(slots=64, overhead=8)
    evaluation = stepper.Evaluation(task, engine, split, costs, heartbeat=lambda: None)
    own = own_batches(split, torch.arange(8).numpy(), engine, costs, 0.1)
    prompts, completions = target_counts(split).sum(0)
    losses = []
    for _ in range(2):
        totals, _ = stepper.accumulate(engine, own, 0.1, 0.1 * prompts + completions)
        losses += [totals.loss, engine.step(1e-2)]
    losses.append(evaluation.whole().loss)
    folder, base = published
    write_model(engine, folder, base)
    engine.barrier()
    return {
        "path": str(path),
        "warnings": warnings,
        "losses": losses,
        "moved": max(moved, default=0),
        "checkpoint": {name: tensor.clone() for name, tensor in state_of(engine).items()},
    }


def check_run(folder: Path, run: Run, coordinates: RankCoordinates, out: Path) -> dict[str, Any]:
    """Compare a run with the same one whose model every rank loads as a whole."""
    import torch

    def adapted(model: Any) -> Any:
        return add_adapter(model, LORA, seed=7) if run.is_adapted else model

    results = []
    pinned = 0
    for kind in ("partitioned", "whole"):
        if kind == "partitioned":
            with counted_pins() as sizes:
                model = partitioned(
                    *(folder, run.precision, coordinates.ranks, run.offload),
                    is_frozen=run.is_adapted,
                )
            pinned = sum(sizes)
        else:
            model = load_model(folder, run.precision)
        place = out / f"published-{kind}-{coordinates.ranks}" / folder.name
        results.append(train(adapted(model), coordinates, run, (place, folder)))
    mine, right = results
    checkpoints = mine.pop("checkpoint"), right.pop("checkpoint")
    same = checkpoints[0].keys() == checkpoints[1].keys() and all(
        torch.equal(checkpoints[0][name], checkpoints[1][name]) for name in checkpoints[0]
    )
    return {"found": mine, "expected": right, "same checkpoint": same, "pinned": pinned}


class PrivateMemory:
    """The largest growth of this process's anonymous memory, which no other process shares."""

    def __init__(self) -> None:
        self._begin = self._now()
        self.growth = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.sample()

    def sample(self) -> None:
        self.growth = max(self.growth, self._now() - self._begin)

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.growth

    @staticmethod
    def _now() -> int:
        """Bytes."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError


def measured(load: Callable[[], Any]) -> int:
    """Peak private memory in bytes that loading a model needs."""
    import gc

    gc.collect()
    memory = PrivateMemory()
    model = load()
    found = memory.stop()
    del model
    return found


class OnAnotherDevice:
    """In place of `OnDevice`: reads each parameter, and keeps it outside of the host's memory."""

    def __init__(self) -> None:
        self._placed: set[int] = set()

    def is_placed(self, parameter: Any) -> bool:
        return id(parameter) in self._placed

    def place(self, parameter: Any) -> None:
        self._placed.add(id(parameter))
        parameter.data = parameter.data.sum().expand(parameter.shape)

    def finish(self, model: Any) -> None: ...


def check_memory(folder: Path, coordinates: RankCoordinates) -> dict[str, int]:
    """Peak private memory of loading in bf16, where the files are in fp32."""

    def on_a_device() -> Any:
        return load_for_training(
            *(folder, "bf16"), zero_stage=1, offload="none", ranks=2, is_frozen=False
        )

    found = {"partitioned": measured(lambda: partitioned(folder, "bf16", coordinates.ranks))}
    original = loading.OnDevice
    loading.OnDevice = OnAnotherDevice  # type: ignore
    found["on a device"] = measured(on_a_device)
    loading.OnDevice = original  # type: ignore
    found["whole"] = measured(lambda: load_model(folder, "bf16"))
    return found


def main(out: Path) -> None:
    support.import_libraries()
    coordinates = RankCoordinates.from_environment()
    connect("cpu")
    models = out / "models"
    found: dict[str, Any] = {}
    if coordinates.ranks == 2:
        for folder in sorted(models.iterdir()):
            kinds: list[Precision] = ["bf16"]  # the files are in fp32, except for one model
            if folder.name.startswith(UNCONVERTED):
                kinds.append("fp32")
            for precision in kinds:
                key = f"{folder.name} {precision}"
                found[key] = check_weights(folder, precision, coordinates)
        found["memory"] = check_memory(out / "large", coordinates)
    found["runs"] = {
        run.model: check_run(models / run.model, run, coordinates, out)
        for run in RUNS_OF[coordinates.ranks]
    }
    name = f"{coordinates.ranks}-{coordinates.rank}.json"
    (out / name).write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # as in `rank.main`: a regular exit may abort in threads of gloo
