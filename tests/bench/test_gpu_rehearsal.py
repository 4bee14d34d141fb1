"""Every part of the GPU program runs on a CPU, so that none fails for the first time on a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu.parts import NAMES
from bench.machine import ROOT
from tests.support.cases import LONG

# seconds; a minute on an idle machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), LONG]


def test_a_rehearsal_runs_every_part(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "bench.gpu", "--rehearse", "--minutes", "9"]
    command += ["--output", str(output)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
    rows = json.loads(output.read_text())["rows"]
    ends = {row["part"]: row for row in rows if "status" in row}
    assert set(ends) == set(NAMES)
    has_trl = importlib.util.find_spec("trl") is not None
    assert {name for name, row in ends.items() if row["status"] != "passed"} == (
        set() if has_trl else {"trl"}
    )
    if not has_trl:
        assert ends["trl"]["status"] == "skipped"
        assert ends["trl"]["message"].startswith("TRL is not installed")
    figures = {
        name: [row for row in rows if row["part"] == name and "name" in row] for name in NAMES
    }
    assert all(figures[name] for name in NAMES if has_trl or name != "trl"), figures
    speeds = [
        (name, row["name"])
        for name in NAMES
        for row in figures[name]
        if row["unit"] == "tokens/s" and row["details"].get("offload") == "none"
    ]
    limits = {(row["details"]["part"], row["details"]["name"]) for row in figures["roofline"]}
    assert limits == set(speeds)
    assert len(speeds) >= 6
