"""Metrics against scikit-learn, SciPy, and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score

from finetune_evaluation.grading import exact_match, token_f1
from finetune_evaluation.metrics import (
    BINS,
    MOST_CLASSES,
    Graded,
    calibration_error,
    classes_of,
    compare,
    confusions,
    is_better,
    measure,
)
from finetune_evaluation.names import (
    BRIER,
    CALIBRATION_ERROR,
    ENDED,
    EXACT_MATCH,
    MACRO_F1,
    TOKEN_F1,
    WEIGHTED_F1,
)


def graded(reference: str, answer: str, probability: float = 1.0) -> Graded:
    grades = {name: grade(answer, reference) for name, grade in GRADES.items()}
    return Graded(1, answer, reference, probability, answer != "", grades)


GRADES = {EXACT_MATCH: exact_match, TOKEN_F1: token_f1}
names = st.sampled_from(["yes", "no", "may be"])
probabilities = st.floats(0, 1, allow_nan=False)
rows = st.lists(
    st.tuples(names, st.one_of(names, st.just("banana")), probabilities), min_size=6, max_size=60
)


@given(rows)
def test_class_metrics_are_those_of_scikit_learn(given_rows: list[tuple[str, str, float]]) -> None:
    answers = [graded(truth, f" {answer}", p) for truth, answer, p in given_rows]
    classes = classes_of([found.reference for found in answers])
    assert set(classes) == {truth for truth, _, _ in given_rows}
    found = measure(answers, classes).metrics
    truth = [row[0] for row in given_rows]
    answer = [row[1] for row in given_rows]
    right = [float(a == b) for a, b in zip(truth, answer, strict=True)]
    options = {"labels": classes, "zero_division": 0}
    assert math.isclose(found[EXACT_MATCH], accuracy_score(truth, answer))
    assert math.isclose(
        found[WEIGHTED_F1], f1_score(truth, answer, average="weighted", **options), abs_tol=1e-12
    )
    assert math.isclose(
        found[MACRO_F1], f1_score(truth, answer, average="macro", **options), abs_tol=1e-12
    )
    brier = brier_score_loss(right, [row[2] for row in given_rows], pos_label=1)
    assert math.isclose(found[BRIER], brier, abs_tol=1e-12)


@given(st.lists(st.tuples(st.integers(0, 999), st.booleans()), min_size=1, max_size=80))
def test_the_calibration_error_is_that_of_scikit_learns_curve(
    pairs: list[tuple[int, bool]],
) -> None:
    confidence = np.array([(number + 0.5) / 1000 for number, _ in pairs])  # on no edge of a bin
    right = np.array([float(is_right) for _, is_right in pairs])
    share, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    counts = np.histogram(confidence, BINS, (0, 1))[0]
    expected = float(np.average(np.abs(share - mean), weights=counts[counts > 0]))
    assert math.isclose(calibration_error(confidence, right), expected, abs_tol=1e-9)


def test_the_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 1.0])
    right = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    # 0.9 to 1.0: five rows, mean 0.96, share 0.8; 0.1 to 0.2: one row
    assert math.isclose(calibration_error(confidence, right), (5 * 0.16 + 0.15) / 6)


@pytest.mark.parametrize(
    ("references", "classes"),
    [
        (["yes", "no", " yes", "yes\n"], ["yes", "no"]),
        (["a", "b", "c", "a"], []),  # three of four
        (["a", "a"], ["a"]),
        (["a"], []),
        ([f"{n % (MOST_CLASSES + 1)}" for n in range(1000)], []),
    ],
)
def test_classes_occur_twice_on_average(references: list[str], classes: list[str]) -> None:
    assert classes_of(references) == classes


def test_free_text_has_no_class_metrics() -> None:
    found = measure([graded("the fox", "the cat"), graded("a b", "")], [])
    assert found.metrics == {EXACT_MATCH: 0, TOKEN_F1: 0.25, ENDED: 0.5}
    assert [*found.metrics] == [EXACT_MATCH, TOKEN_F1, ENDED]


def test_the_order_of_class_metrics() -> None:
    found = measure([graded("a", "a"), graded("a", "b")], ["a"])
    order = [EXACT_MATCH, TOKEN_F1, WEIGHTED_F1, MACRO_F1, CALIBRATION_ERROR, BRIER, ENDED]
    assert [*found.metrics] == order


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_the_margin_is_that_of_a_paired_difference(pairs: list[tuple[bool, bool]]) -> None:
    model, other = (
        measure([graded("a", "a" if pair[index] else "b") for pair in pairs], [])
        for index in (0, 1)
    )
    found = compare(model, other)[EXACT_MATCH]
    differences = [float(first) - float(second) for first, second in pairs]
    assert math.isclose(found.value, float(np.mean(differences)), abs_tol=1e-12)
    low, _ = stats.norm.interval(0.95, loc=0, scale=stats.sem(differences) or 1e-300)
    assert found.margin is not None
    assert math.isclose(found.margin, -low, rel_tol=1e-3, abs_tol=1e-9)


def test_one_row_has_no_margin() -> None:
    one = measure([graded("a", "a")], [])
    assert compare(one, one)[EXACT_MATCH].margin is None


def test_a_gate_needs_a_better_value() -> None:
    good = measure([graded("a", "a", 0.9), graded("b", "b", 0.9)], ["a", "b"])
    bad = measure([graded("a", "b", 0.9), graded("b", "b", 0.9)], ["a", "b"])
    better, worse, same = compare(good, bad), compare(bad, good), compare(good, good)
    for name in (EXACT_MATCH, WEIGHTED_F1, MACRO_F1, CALIBRATION_ERROR, BRIER):
        assert is_better(name, better[name]), name
        assert not is_better(name, worse[name]), name
        assert not is_better(name, same[name]), name


def test_confusions_are_counted() -> None:
    answers = [graded("a", "b"), graded("a", " b"), graded("b", "a"), graded("a", "a")]
    assert confusions(answers, 5) == [("a", "b", 2), ("b", "a", 1)]
    assert confusions(answers, 1) == [("a", "b", 2)]
