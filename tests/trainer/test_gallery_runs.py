"""A trained model of each family writes its turns and stops: in transformers and in `complete`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.data.gallery.families import CALLS, FAMILIES
from tests.trainer.gallery_runs import RUNS
from tests.trainer.support import ROOT, pod_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, float], Any]:
    folder = tmp_path_factory.mktemp("gallery")
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.gallery_runs", str(folder)],
        cwd=ROOT,
        env=pod_environment(HOME=str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    lines = (folder / "results.jsonl").read_text().splitlines()
    return {(found["family"], found["weight"]): found for found in map(json.loads, lines)}


@pytest.mark.parametrize(("name", "weight"), RUNS)
def test_a_model_writes_the_turns_that_it_learned_and_stops(
    results: dict[tuple[str, float], Any], name: str, weight: float
) -> None:
    found = results[name, weight]
    assert "error" not in found, found["error"]
    for turn in found["turns"]:
        assert turn["generated"] in turn["expected"]
        assert turn["has_stopped"]
        if turn["completed"] is not None:
            assert turn["completed"].strip().endswith(turn["content"].strip())
    calls = [
        turn for turn in found["turns"] if "forecast" in turn["generated"][len(turn["prompt"]) :]
    ]
    assert len(calls) == (CALLS in FAMILIES[name].all_supports)
    assert any(turn["completed"] is not None for turn in found["turns"])
