"""T01: the operator dies at any of its writes, or a write is committed after it gave up.

`make sweep` runs all cells of all lifecycles. Here are those of the success, and the tenth of the
others that the commit or the environment variable SWEEP_TENTH chooses.
"""

from collections.abc import Iterator

import pytest

from tests.integration.sweep.cells import Place
from tests.integration.sweep.sweep import Sweep, place

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def scene() -> Iterator[Place]:
    with place() as made:
        yield made


def test_t01_t14_a_success_is_the_same_with_a_fault_at_any_of_its_writes(scene: Place) -> None:
    sweep = Sweep(scene)
    sweep.run_calm(["success"])
    cells = sweep.cells(["success"])
    assert len(cells) >= 3 * 12
    sweep.run_cells(cells)
    assert not sweep.failures, "\n\n".join(sweep.failures)
    assert all(result.hit for result in sweep.results)
