"""Quantities of Kubernetes: an amount of memory or storage as text, such as 64Gi, 500M, or 1e9."""

import math
import re
from fractions import Fraction

# Without a sign, an exponent beyond two digits, and n and u, which make no sense for an amount.
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"
QUANTITY_CHARACTERS = 32

_PARTS = re.compile(r"([0-9.]+)(?:([eE][+-]?[0-9]+)|([a-zA-Z]+))?")
_DECIMAL = {"m": -1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}  # powers of 1000
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}  # powers of 1024
_GIB = 2**30


def parse_quantity(text: str) -> Fraction:
    """The exact number that a quantity means. Raises ValueError for any other text."""
    if len(text) > QUANTITY_CHARACTERS or re.fullmatch(QUANTITY, text) is None:
        raise ValueError(f"{text[:QUANTITY_CHARACTERS]!r} is not a quantity such as 64Gi or 500M")
    parts = _PARTS.fullmatch(text)
    assert parts is not None
    number, exponent, suffix = Fraction(parts[1]), parts[2], parts[3]
    if exponent:
        return number * Fraction(10) ** int(exponent[1:])
    if suffix in _BINARY:
        return number * Fraction(1024) ** _BINARY[suffix]
    return number * Fraction(1000) ** _DECIMAL.get(suffix or "", 0)


def quantity_bytes(text: str) -> int:
    """An amount in whole bytes, rounded up. Raises ValueError."""
    return math.ceil(parse_quantity(text))


def quantity_in_gib(text: str) -> float:
    """An amount of bytes in GiB. Raises ValueError."""
    return float(parse_quantity(text) / _GIB)


def gib_to_quantity(gib: float) -> str:
    """An amount in GiB as whole MiB, rounded up, as Kubernetes prints it: 1.5 is 1536Mi."""
    return f"{math.ceil(gib * 1024)}Mi"
