"""Runs inside the trainer image, under torchrun: one optimizer step, ZeRO-1, two gloo ranks."""

import os
import shutil
import sys
from pathlib import Path


def main() -> None:
    assert os.getuid() != 0
    compilers = [name for name in ("cc", "gcc", "g++", "c++", "clang") if shutil.which(name)]
    assert not compilers, compilers
    try:
        Path("/app/x").write_text("")
    except OSError:
        pass
    else:
        raise AssertionError("the root is writable")

    import deepspeed
    import torch

    deepspeed.init_distributed("gloo")
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), 1e-3),
        config={
            "train_micro_batch_size_per_gpu": 2,
            "zero_optimization": {"stage": 1},
            "bf16": {"enabled": True},
        },
    )
    before = [parameter.detach().clone() for parameter in engine.parameters()]
    rows = torch.randn(2, 64, dtype=torch.bfloat16) + engine.global_rank
    loss = engine(rows).square().mean()
    engine.backward(loss)
    engine.step()
    assert any(not old.equal(new) for old, new in zip(before, engine.parameters(), strict=True))
    assert "deepspeed.ops.comm.deepspeed_shm_comm_op" in sys.modules
    print(f"rank {engine.global_rank} stepped", flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # as the trainer's worker: the interpreter's own end may abort in threads of gloo
