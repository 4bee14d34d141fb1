"""Kubernetes quantities, such as 64Gi, as numbers."""

from decimal import Decimal
from math import ceil

_UNITS = {"": Decimal(1), "m": Decimal("0.001"), "Ki": Decimal(1024)}
for _power, _letter in enumerate("kMGTPE", 1):
    _UNITS[_letter] = Decimal(1000) ** _power
    _UNITS[f"{_letter}i"] = Decimal(1024) ** _power


def quantity_bytes(text: str) -> int:
    """The whole number of bytes, rounded up. Raises ValueError for any other text."""
    number = text.rstrip("mkKMGTPEi")
    try:
        return ceil(Decimal(number) * _UNITS[text[len(number) :]])
    except (KeyError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{text!r} is not a quantity such as 500Gi") from error
