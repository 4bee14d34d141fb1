"""Whether plans fit as measured, for all configurations of the page "What fits where".

The bytes are measured on a virtual GPU (`measured`). What CUDA, NCCL, and a process without the
states use is an assumption of the estimate.
"""

from __future__ import annotations

from functools import cache

import pytest

from docs.generator.memory import CONFIGS
from finetune_data.memory.node import LEAST_RANK_BYTES, RANK_BYTES
from finetune_data.memory.plan import Plan
from tests.trainer.memory import measured
from tests.trainer.memory.measured import CHECKS, TOKENS, Bytes
from tests.trainer.memory.what_fits import (
    CONFIGURATIONS,
    Configuration,
    accepted,
    is_too_much,
    measured_modes,
    mode_of,
    modes,
    refused,
    warned,
)

whole = cache(measured.whole)


def needs(of: Configuration, found: Bytes) -> tuple[float, float]:
    return found.device[TOKENS.index(of.tokens)], found.host


def at_least(of: Configuration, found: Bytes) -> tuple[float, float]:
    """The same, without what a real GPU does not need."""
    inner = CONFIGS[of.model]["intermediate_size"]
    device, host = needs(of, found)
    return device - measured.DECOMPOSED_BYTES * inner * of.tokens, host


def unfit(plans: dict[Configuration, Plan], rank_bytes: float) -> list[tuple[object, ...]]:
    """The configurations whose plans need more than there is of a GPU or of a pod."""
    wrong = []
    for of, plan in plans.items():
        mode = mode_of(of, plan)
        shares = of.shares(*needs(of, whole(mode)), rank_bytes)
        if max(shares) > 1:
            wrong.append((of, mode, shares))
    return wrong


def test_every_accepted_configuration_fits_as_measured() -> None:
    assert unfit(accepted(), RANK_BYTES["nvidia"]) == []
    assert len(accepted()) > len(CONFIGURATIONS) / 2


def test_what_is_accepted_with_a_warning_about_the_host_fits_as_measured() -> None:
    """The warning is about memory that is not measured: of CUDA, NCCL, and loading."""
    assert unfit(warned(), LEAST_RANK_BYTES) == []
    assert warned()


def test_every_refused_configuration_needs_most_of_the_memory_in_every_mode_as_measured() -> None:
    known, wrong = set(measured_modes()), []
    for of in refused():
        for mode in modes(of):
            found = at_least(of, whole(mode)) if mode in known else mode.minimum
            if not is_too_much(of, *found, LEAST_RANK_BYTES):
                wrong.append((of, mode, of.shares(*found, LEAST_RANK_BYTES)))
    assert wrong == []
    assert len(refused()) > len(CONFIGURATIONS) / 10


def test_no_measurement_is_below_the_minimum() -> None:
    for mode in measured_modes():
        found, (device, host) = whole(mode), mode.minimum
        assert min(found.device) >= 0.99 * device, mode
        assert found.host >= 0.99 * host, mode


@pytest.mark.parametrize("cell", CHECKS, ids=lambda cell: cell.key)
def test_measurements_give_the_bytes_for_other_numbers_of_layers_and_ranks(
    cell: measured.Cell,
) -> None:
    expected, found = measured.of(cell), measured.predicted(cell.mode, cell.layers)
    assert found.start == pytest.approx(expected.start, rel=0.001)
    assert found.host == pytest.approx(expected.host, rel=0.001, abs=2**20)
    for most, peak in zip(found.device, expected.device, strict=True):
        assert 0.999 * peak <= most <= 1.04 * peak
