"""Faults at each write of the operator, in all lifecycles. Numbers: the reliability table.

`make sweep` runs all cells. Here are most of those of the success, and the fortieth of the others
that the commit or the environment variable SWEEP_PART chooses.
"""

from collections.abc import Iterator
from typing import get_args

import pytest

from tests.integration.sweep.faults import AtEvent, AtWrite, AtWriteOfFew, Cell
from tests.integration.sweep.lifecycles import LIFECYCLES
from tests.integration.sweep.sweep import PARTS, SLOW_CELLS, Sweep, chosen_part, place
from tests.support.cases import every_nth

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def sweep() -> Iterator[Sweep]:
    with place() as made:
        found = Sweep(made)
        found.run_calm(list(LIFECYCLES))
        yield found


def check(sweep: Sweep, cells: list[Cell]) -> None:
    """Run the cells. None may end otherwise than the undisturbed life."""
    results = sweep.run_cells(cells)
    assert len(results) == len(cells)
    failures = [f"{item.cell} ({item.hit}): {item.error}" for item in results if item.error]
    assert not failures, "\n\n".join(failures)


def test_t01_t14_a_success_is_the_same_with_a_fault_at_any_of_its_writes(sweep: Sweep) -> None:
    cells = sweep.cells("success", *get_args(AtWrite))
    assert len(cells) >= 3 * 12
    check(sweep, cells)
    assert all(result.hit for result in sweep.results if result.cell in cells)


def test_t05_t12_t34_rivals_old_lists_and_polite_ends_do_not_matter_at_any_write(
    sweep: Sweep,
) -> None:
    check(sweep, every_nth(sweep.cells("success", *get_args(AtWriteOfFew)), 3))


def test_t11_any_one_event_of_a_life_may_get_lost_or_come_late_or_in_another_order(
    sweep: Sweep,
) -> None:
    check(sweep, every_nth(sweep.cells("success", *get_args(AtEvent)), 3))


def test_t09_a_busy_and_a_slow_api_server_cost_only_time(sweep: Sweep) -> None:
    check(sweep, [Cell("success", 1, "busy"), Cell("cancel-running", 1, "busy")])
    check(sweep, [Cell("retry", 1, "slow"), Cell("suspend-and-resume", 1, "slow")])


def test_t02_t22_whatever_happens_while_the_operator_is_away_is_caught_up(sweep: Sweep) -> None:
    cells = [cell for name in LIFECYCLES for cell in sweep.cells(name, "away")]
    check(sweep, every_nth(cells, 3))


def test_a_part_of_the_other_lives_is_the_same_with_a_fault(sweep: Sweep) -> None:
    part = chosen_part()
    others = [cell for cell in sweep.all_cells() if is_for_the_part(cell)]
    print(f"cells {part}, {part + PARTS}, {part + 2 * PARTS}, ... (SWEEP_PART={part})")
    check(sweep, [*SLOW_CELLS, *others[part::PARTS]])


def is_for_the_part(cell: Cell) -> bool:
    """Whether the tests do not run the cell anyway."""
    return cell.moment != "away" and cell.lifecycle != "success"
