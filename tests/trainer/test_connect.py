"""How a rank joins the others, and the configuration that DeepSpeed gets."""

from typing import Any

import pytest

from finetune_trainer.engine.deepspeed import configuration, connect


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


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_only_zero_3_overlaps_communication_and_only_on_request(stage: int) -> None:
    for overlaps in (False, True):
        found = configuration(
            zero_stage=stage, precision="bf16", offload="none", ranks=2, overlaps=overlaps
        )
        assert found["zero_optimization"]["overlap_comm"] is (overlaps and stage == 3)
