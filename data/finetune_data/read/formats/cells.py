"""Converts the typed cells of workbooks and Parquet to the values of JSON."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from math import isnan
from typing import Any


def json_value(value: Any) -> Any:
    """Texts, numbers, booleans, lists, and objects; dates as text; missing values as None.

    Struct fields without a value are left out, because a struct has all fields in every row.
    """
    if value is None or isinstance(value, str | bool | int | Decimal):
        return value
    if isinstance(value, float):
        return None if isnan(value) else value
    if isinstance(value, dict):
        values = ((str(key), json_value(item)) for key, item in value.items())
        return {key: item for key, item in values if item is not None}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, bytes):  # Parquet of some programs does not say that bytes are text
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, datetime):
        is_day = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        is_day = is_day and value.tzinfo is None
        return value.date().isoformat() if is_day else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
