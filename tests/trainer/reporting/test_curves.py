"""results.csv as curves: all measured cells are read, and damaged files do not fail."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.outputs.results_csv import columns
from finetune_trainer.reporting.charts.downsampling import smooth, thin
from finetune_trainer.reporting.metric_curves import Curves, Point
from tests.trainer.reporting import support

VALUES = st.floats(-1e6, 1e6)
RUNS = st.lists(VALUES, min_size=1, max_size=400).map(
    lambda values: [Point(step, value) for step, value in enumerate(values, 1)]
)


def test_each_measured_cell_is_a_point_of_its_step() -> None:
    curves = Curves.parse("step,training_loss,validation_loss\n1,4.5,4.25\n2,3.5,\n3,2.5,3\n")
    assert curves.points("training_loss") == [(1, 4.5), (2, 3.5), (3, 2.5)]
    assert curves.points("validation_loss") == [(1, 4.25), (3, 3.0)]
    assert (curves.rows, curves.broken_rows, curves.last_step) == (3, 0, 3)
    assert curves.last("validation_loss") == 3.0
    assert curves.mean_since("training_loss", 1) == 3.0


def test_the_trainers_own_columns_are_read() -> None:
    curves = Curves.parse(support.results(30, asked=support.BINARY))
    assert set(columns(True)) <= set(curves.columns)
    assert "classification/f0.5" in curves.columns


def test_columns_without_a_measured_cell_are_left_out() -> None:
    assert list(Curves.parse("step,training_loss,validation_loss\n1,4.5,\n").columns) == [
        "step",
        "training_loss",
    ]


@pytest.mark.parametrize(
    ("text", "rows", "broken"),
    [
        ("", 0, 0),
        ("step,training_loss\n", 0, 0),
        ("step,training_loss\n1,4.5\n2,3", 2, 0),
        ("step,training_loss\n1,4.5\n2", 1, 1),
        ("step,training_loss\nx,4.5\n2.5,1\n,\n3,1\n", 1, 3),
        ("training_loss\n4\n", 0, 1),
        ("\x00\n\x00,\n", 0, 1),
    ],
)
def test_a_broken_file_gives_the_rows_that_can_be_read(text: str, rows: int, broken: int) -> None:
    curves = Curves.parse(text)
    assert (curves.rows, curves.broken_rows) == (rows, broken)


def test_values_that_are_no_number_are_kept_apart_from_finite_ones() -> None:
    curves = Curves.parse("step,training_loss\n1,2\n2,nan\n3,inf\n")
    assert curves.finite("training_loss") == [(1, 2.0)]
    assert [math.isfinite(point.value) for point in curves.points("training_loss")] == [
        True,
        False,
        False,
    ]
    assert curves.last("training_loss") == 2.0


@given(RUNS, st.integers(1, 20))
def test_thinning_keeps_ends_and_extremes_in_order(points: list[Point], buckets: int) -> None:
    kept = thin(points, buckets)
    assert len(kept) <= 4 * buckets
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    values = [point.value for point in points]
    assert {min(values), max(values)} <= {point.value for point in kept}


@given(RUNS, st.integers(1, 60))
def test_a_running_mean_keeps_steps_and_stays_inside(points: list[Point], window: int) -> None:
    smoothed = smooth(points, window)
    assert [point.step for point in smoothed] == [point.step for point in points]
    values = [point.value for point in points]
    room = 1e-6 * (1 + max(map(abs, values)))
    assert all(min(values) - room <= p.value <= max(values) + room for p in smoothed)


def test_a_straight_line_stays_itself_in_its_middle() -> None:
    line = [Point(step, 2.0 * step) for step in range(1, 101)]
    assert smooth(line, 11)[5:-5] == [pytest.approx(point) for point in line[5:-5]]
