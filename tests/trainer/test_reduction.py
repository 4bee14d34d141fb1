"""In bf16, the reduced gradient is the sum of the gradients of all micro-batches and ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer import support

pytestmark = pytest.mark.slow

TOLERANCE = 1e-6  # of fp32 sums; a sum in bf16 is off by 2e-3


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_bf16_gradients_are_summed_in_fp32(ranks: int, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--max-restarts=0"),
        *(f"--nproc-per-node={ranks}", f"--master-port={support.free_port()}"),
        *("-m", "tests.trainer.reduction", str(tmp_path)),
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
    distances = json.loads((tmp_path / f"{ranks}.json").read_text())
    print(f"{ranks} ranks:", distances)
    assert max(max(found) for found in distances.values()) < TOLERANCE, distances
