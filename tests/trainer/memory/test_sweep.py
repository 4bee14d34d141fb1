"""Measures a few cells again, so that the file with all of them is never out of date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer import support
from tests.trainer.memory import sweep
from tests.trainer.memory.measured import ENOUGH, PATH, Cell, cells
from tests.trainer.memory.what_fits import Mode

pytestmark = pytest.mark.slow

RANKS = 2
AGAIN = (
    Cell(Mode("1B", "full", RANKS, 2, "none"), 2),
    Cell(Mode("3B", "full", RANKS, 3, "optimizer"), ENOUGH),
)


def test_the_file_has_what_is_measured_now(tmp_path: Path) -> None:
    known = sweep.read(PATH)
    assert known["versions"] == sweep.versions(), "run make measure-memory"
    assert set(known["bytes"]) == {cell.key for cell in cells()}
    out = tmp_path / "measured.json"
    others = {key: known["bytes"][key] for key in known["bytes"] if key not in keys()}
    sweep.write(out, known | {"bytes": others})
    command = [sys.executable, "-m", "tests.trainer.memory.sweep", str(out), "--resume"]
    done = subprocess.run(
        [*command, "--ranks", str(RANKS)],
        env=support.pod_environment(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES=""),
        cwd=support.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("ranks:") == len(AGAIN)
    assert sweep.read(out) == known


def keys() -> set[str]:
    return {cell.key for cell in AGAIN}
