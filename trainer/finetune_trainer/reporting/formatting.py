"""Numbers, durations, sizes, and texts as the page, the card, and the advice show them."""

import math

from finetune_trainer.evaluation.class_metrics import PREFIX as CLASSIFICATION

EXCERPT_CHARACTERS = 4000


def number(value: float | None) -> str:
    """Four significant digits without trailing zeros; an en dash for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e7):
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def count(number: int, noun: str) -> str:
    """A number with its noun, for example `1 step` or `1,200 steps`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; an en dash for None."""
    return "–" if value is None else f"{100 * value:.1f}%"


def duration(seconds: float) -> str:
    """The two largest units, for example `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def size(number_of_bytes: int) -> str:
    """A number of bytes in decimal units, for example `1.2 MB`."""
    value = float(number_of_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    if number_of_bytes == 1:
        return "1 byte"
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def metric_label(column: str) -> str:
    """The name of a classification column for readers: `classification/f1.0` is `F1`."""
    name = column.removeprefix(CLASSIFICATION)
    if name in {"auroc", "auprc"}:
        return name.upper()
    if name[:1] == "f" and name[1:2].isdigit():
        return "F" + name[1:].removesuffix(".0")
    return name.replace("_", " ").replace("f1", "F1")


def excerpt(text: str) -> str:
    """A long text without its middle: a prompt can be a whole book."""
    if len(text) <= EXCERPT_CHARACTERS:
        return text
    half = EXCERPT_CHARACTERS // 2
    omitted = len(text) - 2 * half
    return f"{text[:half]}\n[{omitted:,} characters omitted]\n{text[-half:]}"
