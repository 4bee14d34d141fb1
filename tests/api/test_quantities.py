"""Quantities of Kubernetes, against the decimal arithmetic of the standard library."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.finetune_spec import Resources
from finetune_api.quantities import (
    gib_to_quantity,
    parse_quantity,
    quantity_bytes,
    quantity_in_gib,
)

FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
INVALID = [
    "", " 1", "1 ", "1\n", "-1", "+1", ".5", "5.", "1..5", "Gi", "1GiB", "1gi", "1ki", "1K", "1u",
    "1Gi1", "1e", "1e+", "1e999", "1e1Gi", "0x10", "1_000", "١", "1" * 33, "NaN", "inf",
]  # fmt: skip


@given(
    number=st.decimals(0, 10**9, places=4),
    suffix=st.sampled_from(sorted(FACTORS)),
)
def test_a_quantity_is_the_number_times_its_suffix(number: Decimal, suffix: str) -> None:
    assert parse_quantity(f"{number:f}{suffix}") == Fraction(number) * Fraction(FACTORS[suffix])


@given(st.integers(0, 10**6), st.integers(-99, 99), st.sampled_from("eE"))
def test_an_exponent_is_a_power_of_ten(number: int, exponent: int, sign: str) -> None:
    text = f"{number}{sign}{exponent}"
    assert parse_quantity(text) == Fraction(number) * Fraction(10) ** exponent


@pytest.mark.parametrize("text", INVALID)
def test_another_text_is_refused_by_the_parser_and_by_the_spec(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
    with pytest.raises(ValidationError):
        Resources(memory=text)


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    try:
        assert parse_quantity(text) >= 0
    except ValueError as error:
        assert len(str(error)) < 200


@pytest.mark.parametrize(
    ("text", "gib"),
    [("64Gi", 64), ("1536Mi", 1.5), ("1Ti", 1024), ("1073741824", 1), ("107374182400m", 0.1)],
)
def test_bytes_are_converted_to_gib(text: str, gib: float) -> None:
    assert quantity_in_gib(text) == pytest.approx(gib)
    assert quantity_bytes(text) == -(-gib * 2**30 // 1)
    assert Resources(memory=text).memory == text


@given(st.floats(0, 1e6))
def test_an_estimate_is_written_in_whole_mebibytes_and_never_below_it(gib: float) -> None:
    written = quantity_in_gib(gib_to_quantity(gib))
    assert gib <= written <= gib + 1 / 1024 + 1e-9
