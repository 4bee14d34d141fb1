"""The measured bytes of the models of the page "What fits where". Pure.

`measured.json` has what a rank of a model with few layers allocates on a virtual GPU
(`tests.trainer.memory.sweep`). All layers are the same, and all ranks share the same states, so
that a few measurements give the bytes for any number of both. Some further ones check that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from docs.generator.memory import CONFIGS, TOKENS
from tests.trainer.memory.what_fits import Mode, measured_modes

PATH = Path(__file__).resolve().parent / "measured.json"
# The backward pass of SiLU is one kernel on a GPU, but seven operations on the virtual one, whose
# temporary values take up to this many bytes per token and unit of the feed-forward width.
DECOMPOSED_BYTES = 4.5
ENOUGH = 5  # layers: with fewer than four, ZeRO 3 keeps all weights gathered


class Cell(NamedTuple):
    """One measurement, or the bytes that follow from others."""

    mode: Mode
    layers: int
    has_steps: bool = True  # otherwise only the bytes before the first step are measured

    @property
    def key(self) -> str:
        model, method, ranks, stage, offload = self.mode
        return f"{model} {method}, {self.layers} layers, ZeRO {stage}, {offload}, ranks: {ranks}"


CHECKS = (
    Cell(Mode("3B", "full", 2, 1, "none"), 6),
    Cell(Mode("3B", "full", 8, 2, "none"), 8),
    Cell(Mode("8B", "full", 2, 3, "none"), ENOUGH),
    Cell(Mode("8B", "full", 8, 3, "none"), 8),
    Cell(Mode("8B", "full", 8, 3, "parameters"), ENOUGH),
    Cell(Mode("8B", "lora", 8, 3, "none"), ENOUGH + 1),
)


@dataclass(frozen=True)
class Bytes:
    """The bytes of a rank."""

    start: float  # on the GPU, before the first step
    device: tuple[float, ...]  # on the GPU at most, for each number of `TOKENS`
    host: float  # with pinned memory


def cells() -> list[Cell]:
    """All measurements."""
    found: dict[str, Cell] = {}
    wanted = [cell for mode in measured_modes() for cell in _cells(mode)]
    for cell in (*wanted, *(own for check in CHECKS for own in _cells(check.mode)), *CHECKS):
        if cell.has_steps or cell.key not in found:
            found[cell.key] = cell
    return sorted(found.values())


def _cells(mode: Mode) -> Iterator[Cell]:
    """The measurements that give the bytes of a mode."""
    for ranks in known_ranks(mode):
        own = mode._replace(ranks=ranks)
        for layers in measured_layers(own):
            yield Cell(own, layers, has_steps=mode.stage < 3)
    if mode.stage == 3:
        source = _source(mode)
        for ranks in known_ranks(source):
            yield Cell(source._replace(ranks=ranks), ENOUGH)


def measured_layers(mode: Mode) -> tuple[int, int]:
    """The numbers of layers that give the bytes for any number of them."""
    if mode.stage == 2 and (mode.offload != "none" or mode.ranks > 8):
        # What the largest gradient needs depends on the rank's part of all gradients, which must
        # not be much smaller than in the whole model.
        return 7, 8
    return (2, ENOUGH) if mode.stage == 3 else (2, 3)


def known_ranks(mode: Mode) -> tuple[int, ...]:
    """The measured numbers of ranks that give the bytes for that of the mode.

    In ZeRO 3, a single rank gathers no weights, and does not tell anything about several.
    """
    if mode.ranks == 1:
        return (1,)
    known = {1: (1, 8), 2: (2, 8, 64), 3: (2, 8)}[mode.stage]
    return (mode.ranks,) if mode.ranks in known else known[-2:]


def _source(mode: Mode) -> Mode:
    """The mode of ZeRO 3 whose peaks exceed its start by the same bytes.

    Several ranks gather the same weights, wherever those are. Only the norm of an offloaded
    gradient depends on the number of ranks, and it is small for adapters.
    """
    if mode.ranks == 1:
        return mode
    if mode.method == "lora":
        return mode._replace(ranks=2, offload="optimizer")
    if mode.offload == "none":
        return mode._replace(ranks=8)
    return mode._replace(offload="optimizer")


def of(cell: Cell) -> Bytes:
    """The measured bytes. Raises LookupError if the cell is not measured."""
    found = _measured().get(cell.key)
    if found is None:
        raise LookupError(f"{cell.key}: run python -m tests.trainer.memory.sweep --resume")
    return Bytes(found["start"], tuple(found.get("device", ())), found["host"])


def whole(mode: Mode) -> Bytes:
    """The bytes for all layers of the model."""
    return predicted(mode, int(CONFIGS[mode.model]["num_hidden_layers"]))


def predicted(mode: Mode, layers: int) -> Bytes:
    """The bytes for any number of layers and of ranks, from measured numbers of both."""
    alone = (mode._replace(ranks=ranks) for ranks in known_ranks(mode))
    found = _with_ranks(mode, {own.ranks: _with_layers(own, layers) for own in alone})
    if mode.stage < 3:
        return found
    source = _source(mode)
    peaks = {ranks: of(Cell(source._replace(ranks=ranks), ENOUGH)) for ranks in known_ranks(source)}
    peak = _with_ranks(source, peaks)
    # Gathered weights do not grow with the layers, each of which stores its input.
    stored = 2 * CONFIGS[mode.model]["hidden_size"] * (layers - ENOUGH)
    device = tuple(
        found.start + most - peak.start + stored * tokens
        for most, tokens in zip(peak.device, TOKENS, strict=True)
    )
    return Bytes(found.start, device, found.host)


def _with_layers(mode: Mode, layers: int) -> Bytes:
    low, high = measured_layers(mode)
    few, more = (of(Cell(mode, measured)) for measured in (low, high))
    return _line(few, more, (layers - low) / (high - low))


def _with_ranks(mode: Mode, found: dict[int, Bytes]) -> Bytes:
    """Some bytes are the same on every rank, and the ranks share the others."""
    if mode.ranks in found:
        return found[mode.ranks]
    low, high = sorted(found)
    return _line(found[low], found[high], (1 / mode.ranks - 1 / low) / (1 / high - 1 / low))


def _line(first: Bytes, last: Bytes, share: float) -> Bytes:
    """The values of the line through `first` (share 0) and `last` (share 1)."""

    def value(one: float, other: float) -> float:
        return one + share * (other - one)

    peaks = zip(first.device, last.device, strict=False)  # of ZeRO 3, they are not used
    return Bytes(
        value(first.start, last.start),
        tuple(value(one, other) for one, other in peaks),
        value(first.host, last.host),
    )


@cache
def _measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text())["bytes"]
    return found
