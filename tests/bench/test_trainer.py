"""The parts of the trainer's benchmark that measure nothing."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from bench.machine import ROOT
from bench.table import Line
from bench.trainer import environments, measurement, workload
from bench.trainer.measurement import WARM_UP, Settings
from images.requirements import pinned_lines

TRL = ROOT / "bench" / "trainer" / "trl_baseline.py"


@pytest.mark.parametrize(
    ("ratio", "target", "is_met"),
    [
        (1.1, ">= 1.1", True),
        (1.09, ">= 1.1", False),
        (0.6, "<= 0.6", True),
        (0.61, "<= 0.6", False),
        (2.0, None, None),
        (None, "<= 2.0", None),
    ],
)
def test_a_target_is_met_at_its_bound(
    ratio: float | None, target: str | None, is_met: bool | None
) -> None:
    assert Line("part", "name", [1.0], "s", ratio, target).is_met is is_met


def test_lengths_are_log_normal_as_alpacas_and_the_same_each_time() -> None:
    found = workload.lengths(50_000)
    assert np.array_equal(found, workload.lengths(50_000))
    assert math.isclose(found.mean(), workload.MEAN, rel_tol=0.02)
    assert math.isclose(float(np.median(found)), workload.MEDIAN, rel_tol=0.02)
    assert found.max() <= workload.LONGEST


def test_steps_of_the_warm_up_do_not_count() -> None:
    slow, steady = [99.0] * (WARM_UP - 1), [2.0, 2.0]  # the first step is not reported
    found = {"seconds": slow + steady, "tokens": [1] * (WARM_UP - 1) + [100, 300]}
    assert measurement.tokens_per_second(found) == 100.0


def test_the_overhead_is_that_of_the_typical_step() -> None:
    assert measurement.excess([1.5, 2.5, 9.0], [1.0, 2.0, 3.0]) == 0.5


def test_a_quick_run_is_short_and_still_measures_after_the_warm_up(tmp_path: Path) -> None:
    assert WARM_UP < Settings(tmp_path, is_quick=True).steps(300) < WARM_UP + 10
    assert Settings(tmp_path).steps(300) == WARM_UP + 300


def test_the_trl_baseline_imports_none_of_our_packages() -> None:
    """They are not installed in its environment."""
    tree = ast.parse(TRL.read_text())
    names = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {name for name in names if name.startswith(("finetune", "bench", "tests"))}
    assert any(name.startswith("trl") for name in names)


def test_the_trl_baseline_has_the_project_s_torch_and_transformers() -> None:
    pins = environments.pins()
    locked = pinned_lines((ROOT / "constraints.txt").read_text())
    assert set(pins) <= set(locked.values())
    assert {pin.partition("==")[0] for pin in pins} == set(environments.SHARED)
