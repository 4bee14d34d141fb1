"""How a rank joins the others."""

from typing import Any

import pytest

from finetune_trainer.engine.deepspeed import connect


@pytest.mark.parametrize("accelerator", ["cpu", "nvidia"])
def test_no_deepspeed_op_is_probed(accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import deepspeed
    import torch

    def probe() -> dict[str, bool]:
        raise AssertionError("a probe runs compilers, and logs seven warnings without CUDA_HOME")

    has_ops: list[Any] = []
    monkeypatch.setattr(deepspeed.ops, "_probe_compatible_ops", probe)
    monkeypatch.setitem(vars(deepspeed.ops), "__compatible_ops__", {})
    del vars(deepspeed.ops)["__compatible_ops__"]  # as in a new process
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setenv("LOCAL_RANK", "0")

    def init_distributed(**_: Any) -> None:  # as in DeepSpeed's `build_shm_op`
        has_ops.append(deepspeed.ops.__compatible_ops__.get("deepspeed_shm_comm", False))

    monkeypatch.setattr(deepspeed, "init_distributed", init_distributed)
    connect(accelerator)
    assert has_ops == [False]
