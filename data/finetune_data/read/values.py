"""One form for the values of JSON, Parquet, and workbooks: a row is the same in every format."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import Any

EXACT = 2**53  # larger whole numbers are not exact as floating-point numbers
SMALLEST_INT, LARGEST_INT = -(2**63), 2**64 - 1  # of the JSON that is written


def plain_text(value: object) -> str | None:
    """The text of a text, number, or boolean; None for any other value.

    A whole number has no fraction, because Parquet and workbooks store 1 as 1.0. Booleans have
    JSON's spelling, because a spreadsheet shows them in the language of its user.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else None
    if isinstance(value, float) and isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)
    return None


def is_blank(value: object) -> bool:
    """Whether nothing is lost if the value is ignored: null, or an empty text, list, or object."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def canonical_json(value: Any) -> Any:
    """A JSON value in the form that every format can store. Raises ValueError.

    A Parquet struct has all fields in every row, so a key whose value is null is the same as no
    key. A Parquet column has one type of number, so 1.0 is the same as 1.
    """
    if isinstance(value, dict):
        return {key: canonical_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [canonical_json(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal):
        return _canonical_number(value)
    raise ValueError(f"a value of the type {type(value).__name__}, which JSON does not have")


def _canonical_number(value: float | Decimal) -> int | float:
    try:
        whole = int(value)
        if isinstance(value, int) or (value == whole and abs(whole) < EXACT):
            return whole if SMALLEST_INT <= whole <= LARGEST_INT else float(whole)
        number = float(value)
    except (OverflowError, ValueError) as error:
        raise ValueError("a number that is too large") from error
    if not isfinite(number):
        raise ValueError("a number that is too large")
    return number
