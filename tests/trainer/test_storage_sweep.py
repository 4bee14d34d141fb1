"""Killed before and after a write to S3, the trainer and the prepare Job end with equal results.

A few cases of each day; `make sweep-storage` runs all.
"""

import datetime
import os
from pathlib import Path

import pytest

from finetune_storage.s3 import Storage
from tests.trainer.storage_sweep.runs import Lifecycle, Preparation, Training
from tests.trainer.storage_sweep.sweep import Sweep

pytestmark = pytest.mark.slow

CASES = 2
DAY = "STORAGE_SWEEP_DAY"  # environment variable: a number instead of today's


@pytest.mark.parametrize("kind", [Preparation, Training])
def test_a_kill_at_a_write_changes_no_result(
    kind: type[Preparation] | type[Training], s3_server: str, storage: Storage, tmp_path: Path
) -> None:
    lifecycle: Lifecycle = kind(storage, s3_server, tmp_path)
    sweep = Sweep(lifecycle)
    day = int(os.environ.get(DAY) or datetime.datetime.now(datetime.UTC).toordinal())
    cases = sweep.cases
    step = len(cases) // CASES
    chosen = [cases[(day + number * step) % len(cases)] for number in range(CASES)]
    verdicts = list(sweep.run(chosen))
    print(f"{DAY}={day}", *verdicts, sep="\n")
    assert any(verdict.was_killed for verdict in verdicts)
    assert [verdict for verdict in verdicts if verdict.problems] == []
