"""The computations of `test_optimizer_state`, run by one rank: `OUT`

Writes, for each ZeRO stage and offload mode, whether a resume keeps the memory of the optimizer's
state, and the distance of the weights from those of the unfused AdamW.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from finetune_trainer.engine import fragments
from finetune_trainer.engine.deepspeed import MOMENTS, Engine, RankCoordinates, connect
from tests.trainer import support
from tests.trainer.reduction import MODES, own_batches

STEPS = 4
RATE = 3e-3


def trained(coordinates: RankCoordinates, stage: int, offload: str) -> Engine:
    """An engine after a few steps."""
    import torch

    model = support.tiny_llama().to(torch.bfloat16).train()
    engine = Engine(
        *(model, coordinates),
        zero_stage=stage,
        precision="bf16",
        weight_decay=0.01,
        offload=offload,
    )
    for _ in range(STEPS):
        batch = own_batches(coordinates, 0)[0]  # the same one, so that every version learns it
        engine.backward(engine.predict(batch, 0.1)[0] / 50, is_last=True)
        engine.step(RATE)
    return engine


def weights(engine: Engine) -> Any:
    import torch

    return torch.cat([engine.read_weights(p).double().flatten() for _, p in engine.parameters()])


def moments(engine: Engine) -> list[Any]:
    return [f.tensors[key] for f in fragments.own_fragments(engine) for key in MOMENTS]


def copied_fragments(engine: Engine) -> int:
    """The fragments that would be copied to a GPU if the optimizer's state is on the host."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    name = accelerator.current_device_name
    accelerator.current_device_name = lambda: "meta"  # stands for the GPU
    try:
        found = list(fragments.own_fragments(engine))
    finally:
        accelerator.current_device_name = name
    return sum(tensor.is_meta for fragment in found for tensor in fragment.tensors.values())


def check(coordinates: RankCoordinates, stage: int, offload: str) -> dict[str, Any]:
    import torch

    engine = trained(coordinates, stage, offload)
    fused = weights(engine)
    optimizer = torch.optim.AdamW
    torch.optim.AdamW = lambda *a, **k: optimizer(*a, **k | {"fused": False})  # type: ignore
    plain = weights(trained(coordinates, stage, offload))
    torch.optim.AdamW = optimizer  # type: ignore
    before = moments(engine)
    has_moments = all(bool(tensor.any()) for tensor in before[:2])
    engine.start_at(7)
    after = moments(engine)
    on_another_device = copied_fragments(engine)
    states = [state for state in engine._adam.state.values() if state]
    return {
        "fused": all(group["fused"] for group in engine._adam.param_groups),
        "distance": float((fused - plain).norm() / plain.norm()),
        "had moments": has_moments,
        "same memory": [t.data_ptr() for t in before] == [t.data_ptr() for t in after],
        "zero": not any(bool(tensor.any()) for tensor in after),
        "copied": on_another_device,
        "steps": sorted({float(state["step"]) for state in states}),
    }


def main(out: Path) -> None:
    support.import_libraries()
    coordinates = RankCoordinates.from_environment()
    connect("cpu")
    found = {f"{stage}-{offload}": check(coordinates, stage, offload) for stage, offload in MODES}
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # as in `rank.main`: a regular exit may abort in threads of gloo
