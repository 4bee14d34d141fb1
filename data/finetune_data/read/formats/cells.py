"""Converts the typed cells of workbooks and Parquet to the text that people see."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any


def cell_text(value: Any) -> Any:
    """Numbers, dates, and booleans as text; text, lists, objects, and None unchanged."""
    if value is None or isinstance(value, str | list | dict):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, datetime):
        is_day = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        return value.date().isoformat() if is_day else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return value
