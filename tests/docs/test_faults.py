"""The table of faults names tests that exist, and the page of the sweep shows its result file."""

import json
import re
from pathlib import Path

from tests.integration.sweep.results import PAGE, RESULTS, render

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "decisions" / "faults.md"


def test_every_fault_has_tests_that_exist() -> None:
    rows = [line.split("|") for line in TABLE.read_text().splitlines() if line.startswith("| T")]
    assert [row[1].strip() for row in rows] == [f"T{number:02}" for number in range(1, 36)]
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row[4])
        assert named, row[1]
        assert set(named) <= defined, row[1]


def test_the_page_of_the_sweep_shows_its_result_file() -> None:
    assert PAGE.read_text() == render(json.loads(RESULTS.read_text()))
