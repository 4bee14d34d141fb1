"""How the tests with API servers are divided among processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEST = """
import os, pathlib, time, pytest

@pytest.mark.parametrize("number", range({number}))
def test(number):
    pathlib.Path("{file}-" + os.environ["PYTEST_XDIST_WORKER"]).touch()
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_the_tests_that_share_an_api_server_run_in_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "integration"
    folder.mkdir()
    files = {"crd": 9, "rbac": 1, "lives": 3, "crash_sweep": 3, "versions": 1}
    for file, number in files.items():
        (folder / f"test_{file}.py").write_text(TEST.format(number=number, file=file))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-n", "2", "--dist", "loadgroup", "integration"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    ran = sorted(path.name for path in tmp_path.glob("*-gw?"))
    assert len(ran) == len(files), ran
    process = dict(name.split("-") for name in ran)
    assert process["crd"] == process["rbac"] != process["lives"] == process["crash_sweep"]
