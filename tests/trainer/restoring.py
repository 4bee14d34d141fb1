"""The computations of `test_restoring`, run by the ranks of a torchrun: `OUT`

Every rank is a pod of its own. For each ZeRO stage, the ranks save a checkpoint, and then restore
it, those of another stage, and those of earlier process groups. Rank 0 writes what it measured.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_api.layout import MANIFEST, RunLayout
from finetune_api.uris import S3Uri
from finetune_storage.connect import open_storage
from finetune_storage.progress import ProgressCallback
from finetune_storage.s3 import Storage
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.checkpoint.store import Checkpoints
from finetune_trainer.engine import deepspeed as engine_module
from finetune_trainer.engine.deepspeed import MOMENTS, Engine, RankCoordinates, connect
from tests.trainer import support
from tests.trainer.reduction import own_batches

STAGES = (0, 1, 2, 3)
RANKS = (2, 3)  # of the process groups, in their order
STEPS = 2
FROZEN = "model.layers.1.mlp.down_proj.weight"
PERSISTENT = 100  # numbers: ZeRO 3 keeps smaller parameters whole on every rank


class CountingStorage(Storage):
    """Counts the bytes that are read of shards."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage._client)
        self.shards: dict[str, int] = {}  # bytes of the downloaded files
        self.ranges = 0

    def read_range(self, uri: S3Uri, start: int, size: int) -> bytes:
        self.ranges += size
        return super().read_range(uri, start, size)

    def download_prefix(
        self,
        uri: S3Uri,
        folder: Path,
        include: Sequence[str] = ("**",),
        progress: ProgressCallback | None = None,
    ) -> list[str]:
        found = super().download_prefix(uri, folder, include, progress)
        self.shards |= {name: (folder / name).stat().st_size for name in found}
        return found


def configuration(**options: Any) -> dict[str, Any]:
    """DeepSpeed's, in which the small model has both kinds of parameters in ZeRO 3."""
    value = ORIGINAL(**options)
    value["zero_optimization"]["stage3_param_persistence_threshold"] = PERSISTENT
    return value


ORIGINAL = engine_module.configuration


def engine_of(coordinates: RankCoordinates, stage: int, seed: int) -> Engine:
    model = support.tiny_llama(seed).train()
    model.get_parameter(FROZEN).requires_grad_(False).copy_(frozen_weight())
    return Engine(model, coordinates, zero_stage=stage, precision="fp32", weight_decay=0.01)


def frozen_weight() -> Any:
    """In no checkpoint; the same in every engine."""
    return support.tiny_llama(0).get_parameter(FROZEN).detach()


def train(engine: Engine) -> None:
    for step in range(STEPS):
        batch = own_batches(engine.coordinates, step)[0]
        engine.backward(engine.predict(batch, 0.1)[0] / 50, is_last=True)
        engine.step(3e-3)


def state_of(engine: Engine) -> dict[str, Any]:
    """All weights and moments; those of ZeRO 3 and of one process group are the same on all."""
    from deepspeed.utils import safe_get_full_optimizer_state

    found = {}
    for name, parameter in engine.parameters():
        found[name] = engine.read_weights(parameter).clone()
        for key in MOMENTS:
            whole = (
                engine.adam_state(parameter)[key]
                if engine.zero_stage == 0
                else safe_get_full_optimizer_state(parameter, key)
            )
            found[f"{name} {key}"] = whole.detach().clone().view(found[name].shape)
    return found


def output_of(engine: Engine) -> float:
    """The loss of the weights that a forward pass uses."""
    engine.model.eval()
    loss = float(engine.predict(own_batches(RankCoordinates(0, 0, 1), 5)[0], 0.1)[0])
    engine.model.train()
    return loss


def checkpoints(uid: str, storage: Storage, engine: Engine, folder: Path) -> Checkpoints:
    layout = support.train_task(uid).run.layout
    return Checkpoints(layout, storage, engine, folder, attempt=1)


def damage(kind: str, storage: Storage, uri: S3Uri, layout: RunLayout, step: int) -> None:
    """Copy a checkpoint as that of another step, with a fault in its second shard."""
    names = [entry.key[len(uri.key) + 1 :] for entry in storage.list(uri)]
    objects = {name: storage.read_bytes(uri.child(name)) for name in names}
    manifest = json.loads(objects[MANIFEST])
    manifest["state"]["step"] = step
    objects[MANIFEST] = json.dumps(manifest).encode()
    shard = sorted(name for name in names if name != MANIFEST)[1]
    data = objects[shard]
    match kind:
        case "a changed byte":
            objects[shard] = data[:-1] + bytes([data[-1] ^ 1])
        case "a changed header":
            objects[shard] = b"\xff" * 8 + data[8:]
        case "a short shard":
            objects[shard] = data[:-4]
        case "a missing shard":
            del objects[shard]
        case "a path outside":
            objects[MANIFEST] = objects[MANIFEST].replace(shard.encode(), f"../{shard}".encode())
        case "no manifest":
            objects[MANIFEST] = b"{"
    for name, content in objects.items():
        storage.write_bytes(layout.checkpoint(step).child(name), content)


DAMAGES = (
    *("a changed byte", "a changed header", "a short shard", "a missing shard"),
    *("a path outside", "no manifest"),
)


def read_damaged(engine: Engine, storage: Storage, folder: Path) -> dict[str, int]:
    """The step that is restored next to an intact checkpoint of an earlier step, by damage."""
    found = {}
    for origin in (1, 3):  # the layout of the engine, and another one
        for index, kind in enumerate(DAMAGES):
            uid = f"{origin}{index} damage"
            layout = support.train_task(uid).run.layout
            source = support.train_task(f"2{origin} restore").run.layout.checkpoint(STEPS)
            if engine.coordinates.rank == 0:
                damage("none", storage, source, layout, STEPS)
                damage(kind, storage, source, layout, STEPS + 1)
            engine.barrier()
            step = checkpoints(uid, storage, engine, folder).restore().step
            found[f"{kind} {origin}"] = step
    return found


def main(out: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    support.import_libraries()
    whole = RankCoordinates.from_environment()
    connect("cpu")
    engine_module.configuration = configuration
    coordinates = replace(whole, local_rank=0)  # a pod per rank
    storage = open_storage()
    folder = out / f"pod-{whole.rank}"
    measured: dict[str, Any] = {}
    writers = [ranks for ranks in RANKS if ranks <= whole.ranks]
    for stage in STAGES:
        engine = engine_of(coordinates, stage, seed=0)
        train(engine)
        saved = checkpoints(f"{whole.ranks}{stage} restore", storage, engine, folder)
        saved.begin(TrainingState(step=STEPS))
        assert saved.finish() is not None
        expected, output = state_of(engine), output_of(engine)
        if whole.rank == 0:
            expected["output"] = torch.tensor(output, dtype=torch.float64)
            save_file(expected, out / f"{whole.ranks}-{stage}.safetensors")
        engine.barrier()
    for stage in STAGES:
        engine = engine_of(coordinates, stage, seed=1)
        train(engine)  # so that incomplete restores are visible
        frozen = engine.read_weights(engine.model.get_parameter(FROZEN))
        assert torch.equal(frozen, frozen_weight()), stage
        for ranks in writers:
            for origin in {stage, (stage + 1) % len(STAGES)}:
                counting = CountingStorage(storage)
                source = checkpoints(f"{ranks}{origin} restore", counting, engine, folder)
                assert source.restore().step == STEPS
                right = load_file(out / f"{ranks}-{origin}.safetensors")
                found = state_of(engine)
                equal = all(torch.equal(found[name], right[name]) for name in found)
                entry = {
                    "equal": equal,
                    "output": output_of(engine) - float(right["output"]),
                    "downloaded": sorted(counting.shards),
                    "bytes": sum(counting.shards.values()),
                    "ranges": counting.ranges,
                    "is empty": not folder.exists() or not list(folder.iterdir()),
                }
                measured[f"{ranks} {origin} -> {stage}"] = entry
        if stage == 1 and whole.ranks == 2:
            measured["damaged"] = read_damaged(engine, storage, folder)
    (out / f"measured-{whole.ranks}-{whole.rank}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # as in `rank.main`: a regular exit may abort in threads of gloo
