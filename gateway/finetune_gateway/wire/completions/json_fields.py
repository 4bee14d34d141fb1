"""Checks of single fields of a JSON body. Each raises Problem with the field's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from finetune_api.text.sanitizing import sanitize
from finetune_web.problems import Problem, invalid

Check = Callable[[Any, str], None]  # of a value; the second argument is the name of the field
SHOWN_CHARACTERS = 40


def reject(param: str, value: Any, expected: str) -> Problem:
    """The error about a value. expected: a noun phrase, such as `a number from 0 to 2`."""
    shown = orjson.dumps(value).decode() if value is not None else "missing"
    if len(shown) > SHOWN_CHARACTERS:
        shown = f"{shown[:SHOWN_CHARACTERS]}..."
    return invalid(f"The field '{param}' must be {expected}, not {sanitize(shown)}.", param)


def is_integer(value: Any, low: int | None = None, high: int | None = None) -> bool:
    """Whether it is an integer within the bounds. A boolean is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def integer(low: int | None = None, high: int | None = None) -> Check:
    def check(value: Any, param: str) -> None:
        if not is_integer(value, low, high):
            raise reject(param, value, f"an integer{_range(low, high)}")

    return check


def number(low: float, high: float) -> Check:
    def check(value: Any, param: str) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise reject(param, value, f"a number{_range(low, high)}")

    return check


def boolean(value: Any, param: str) -> None:
    if not isinstance(value, bool):
        raise reject(param, value, "true or false")


def text(value: Any, param: str) -> None:
    if not isinstance(value, str):
        raise reject(param, value, "a text")


def any_object(value: Any, param: str) -> None:
    if not isinstance(value, dict):
        raise reject(param, value, "an object")


def object_of(item: Check) -> Check:
    """An object whose values pass the check of `item`."""

    def check(value: Any, param: str) -> None:
        any_object(value, param)
        for key, it in value.items():
            item(it, f"{param}.{sanitize(key[:SHOWN_CHARACTERS])}")

    return check


def objects(value: Any, param: str) -> None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise reject(param, value, "a list of objects")


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return "" if low is None else f" of at least {low}"
    return f" from {low} to {high}"
