"""The optimizer's state in every ZeRO stage and offload mode."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.trainer import support

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("optimizer")
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--max-restarts=0"),
        *("--nproc-per-node=1", f"--master-port={support.free_port()}"),
        *("-m", "tests.trainer.optimizer_state", str(folder)),
    ]
    done = subprocess.run(
        command,
        env=support.pod_environment(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES=""),
        cwd=support.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    values: dict[str, dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return values


def test_a_resume_reuses_the_memory_of_the_moments(found: dict[str, dict[str, Any]]) -> None:
    for mode, values in found.items():
        assert values["had moments"], mode
        assert values["same memory"], mode
        assert values["zero"], mode
        assert values["steps"] == [7.0], mode


def test_the_fused_optimizer_has_the_weights_of_the_plain_one(
    found: dict[str, dict[str, Any]],
) -> None:
    print({mode: values["distance"] for mode, values in found.items()})
    for mode, values in found.items():
        assert values["fused"], mode
        assert values["distance"] < 1e-6, mode
