"""The imports that a process of the trainer may make when it starts."""

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "deepspeed", "transformers", "peft")


@pytest.mark.parametrize(
    "modules",
    [
        (
            "finetune_trainer.launcher.main",
            "finetune_trainer.launcher.downloads",
            "finetune_data.lookup.published",
            "finetune_storage.connect",
        ),
        ("finetune_trainer.rank.main",),
        ("finetune_trainer.checkpoint.shard_upload",),
        (
            "finetune_trainer.batching.microbatch",
            "finetune_trainer.batching.order",
            "finetune_trainer.batching.packing",
            "finetune_trainer.step.loss",
        ),
    ],
    ids=["launcher", "rank", "shard_upload", "pure"],
)
def test_it_imports_no_heavy_library(modules: tuple[str, ...]) -> None:
    script = f"import sys, {', '.join(modules)}; print([m for m in {HEAVY} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == "[]\n"
