"""The table of faults names tests that exist."""

import re
from pathlib import Path

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
