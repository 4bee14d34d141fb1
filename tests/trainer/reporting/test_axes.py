"""Ticks at round values, and readable numbers."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finetune_trainer.reporting.charts.axes import Unit, step_scale, value_scale
from finetune_trainer.reporting.formatting import duration, number, percent, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.20441, "1.204"),
        (0.5, "0.5"),
        (12345.6, "12,346"),
        (2e-5, "2e-5"),
        (1.234567e-7, "1.235e-7"),
        (3e8, "3e8"),
        (-0.25, "-0.25"),
        (float("nan"), "not a number"),
        (float("inf"), "infinite"),
    ],
)
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_shares_durations_and_sizes_are_readable() -> None:
    assert (percent(0.8333), percent(None)) == ("83.3%", "–")
    assert [duration(s) for s in (3.21, 75, 3700, 200_000)] == [
        "3.2 s",
        "1 min 15 s",
        "1 h 1 min",
        "2 d 7 h",
    ]
    assert [size(n) for n in (0, 999, 1500, 2_500_000, 3 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "2.5 MB",
        "3,000.0 GB",
    ]


@pytest.mark.parametrize(
    ("values", "unit", "texts"),
    [
        ([0.3, 3.3], "plain", ["0", "1", "2", "3", "4"]),
        ([2e-6, 2e-5], "plain", ["0", "5e-6", "1e-5", "1.5e-5", "2e-5"]),
        ([0.1, 0.93], "percent", ["0%", "20%", "40%", "60%", "80%", "100%"]),
        ([0.985, 1.0], "percent", ["98.5%", "99.0%", "99.5%", "100.0%"]),
        ([4800, 5300], "count", ["0", "2k", "4k", "6k"]),
    ],
)
def test_ticks_of_values(values: list[float], unit: Unit, texts: list[str]) -> None:
    assert [text for _, text in value_scale(values, unit).ticks] == texts


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20),
    st.sampled_from(["plain", "count"]),
    st.booleans(),
)
def test_every_value_has_its_place_and_ticks_differ(
    values: list[float], unit: Unit, may_be_logarithmic: bool
) -> None:
    scale = value_scale(values, unit, may_be_logarithmic=may_be_logarithmic)
    assert all(-1e-6 <= scale.place(value) <= 1 + 1e-6 for value in values)
    assert all(-1e-6 <= scale.place(tick) <= 1 + 1e-6 for tick, _ in scale.ticks)
    if max(values) - min(values) > 1e-3 * max(map(abs, values)):
        texts = [text for _, text in scale.ticks]
        assert len(texts) == len(set(texts))
        assert 2 <= len(texts) <= 12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@example([0.0, 5e-324])
def test_shares_never_leave_0_to_1(values: list[float]) -> None:
    scale = value_scale(values, "percent")
    assert 0 <= scale.low < scale.high <= 1
    assert all(-1e-6 <= scale.place(value) <= 1 + 1e-6 for value in values)


def test_a_loss_over_decades_gets_a_logarithmic_axis() -> None:
    scale = value_scale([0.01, 4.0], "plain", may_be_logarithmic=True)
    assert scale.is_logarithmic
    assert [text for _, text in scale.ticks] == ["0.01", "0.1", "1"]
    assert not value_scale([0.0, 4.0], "plain", may_be_logarithmic=True).is_logarithmic
    assert not value_scale([0.01, 4.0], "plain").is_logarithmic


@given(st.integers(1, 10**6))
@example(12)
def test_steps_are_whole(last: int) -> None:
    scale = step_scale(1, last)
    assert scale.ticks
    assert all(float(tick).is_integer() and 1 <= tick <= last for tick, _ in scale.ticks)
    texts = [text for _, text in scale.ticks]
    assert len(texts) == len(set(texts)) <= 9
