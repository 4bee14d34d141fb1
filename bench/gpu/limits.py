"""The limit of each measured speed, from the kernels of its micro-batches and the card's rates.

It needs no GPU: it can also run on another machine with the same results file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.gpu import roofline
from bench.gpu.device import Device
from bench.gpu.parts import PARTS
from bench.gpu.results import Measurement, Row, Skipped
from bench.gpu.roofline import Rates
from bench.gpu.speed import SPEED
from bench.trainer import workload
from finetune_api.tasks import MethodRef

SETTINGS = ("checkpointed", "is_fused")  # of `count_pass`
# The ceilings that `attention` measured, by the fields of Rates.
CEILINGS = {
    "products": ("product of bf16 matrices", 1e12),
    "attention": ("attention, forward and backward", 1e12),
    "memory": ("copy", 1e12),
}


def measure(device: Device) -> Iterator[Measurement]:
    rates = measured_rates(device.results.last("attention"))
    speeds = [
        (part.name, row)
        for part in PARTS
        if part.module == "speed"
        for row in device.results.last(part.name)
        if row.get("unit") == SPEED and row["details"]["offload"] == "none"
    ]
    if not speeds:
        raise Skipped("no speed has been measured yet")
    known: dict[str, float] = {}
    for part, row in speeds:
        wanted = case(row["details"])
        key = repr(wanted)
        if key not in known:
            known[key] = limit(device, wanted, rates)
        details = {"part": part, "name": row["name"], "rates": vars(rates)}
        yield Measurement(f"{part}, {row['name']}", known[key], SPEED, details=details)


def measured_rates(rows: list[Row]) -> Rates:
    """The rates of this card; those of an H100 where the card was not measured."""
    values = {row["name"]: row["value"] for row in rows if "value" in row}
    found = {
        field: values[name] * scale for field, (name, scale) in CEILINGS.items() if name in values
    }
    return Rates(**found)


def case(details: dict[str, Any]) -> dict[str, Any]:
    """What determines the kernels of a step."""
    names = ("model", "method", "dropout", "length", "micro_batches", *SETTINGS)
    return {name: details[name] for name in names}


def limit(device: Device, wanted: dict[str, Any], rates: Rates) -> float:
    """Tokens per second, for equal micro-batches of the mean size."""
    sizes = wanted["micro_batches"]
    tokens = max(2, round(sum(sizes) / len(sizes)))
    length = min(tokens, device.pick(wanted["length"] or workload.MEAN, 16))
    bounds = [*range(0, tokens, length), tokens]
    one = roofline.count_pass(
        *(wanted["model"], bounds),
        method=MethodRef(type=wanted["method"], dropout=wanted["dropout"]),
        **{name: wanted[name] for name in SETTINGS},
        targets=round(tokens * workload.COMPLETION),
        is_tiny=device.is_rehearsal,
    )
    return roofline.tokens_per_second(one, len(sizes), rates)
