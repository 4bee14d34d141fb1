"""In bf16, the reduced gradient is the sum of the gradients of all micro-batches and ranks."""

import json
from pathlib import Path

import pytest

from tests.support.cases import every_nth
from tests.trainer import support

pytestmark = pytest.mark.slow

TOLERANCE = 1e-6  # of fp32 sums; a sum in bf16 is off by 2e-3


@pytest.mark.parametrize("ranks", every_nth([2, 1, 3], 3))
def test_bf16_gradients_are_summed_in_fp32(ranks: int, tmp_path: Path) -> None:
    support.run_ranks("tests.trainer.reduction", ranks, str(tmp_path))
    distances = json.loads((tmp_path / f"{ranks}.json").read_text())
    print(f"{ranks} ranks:", distances)
    assert max(max(found) for found in distances.values()) < TOLERANCE, distances
