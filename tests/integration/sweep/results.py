"""The page about the results of the crash sweep, from its result file."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "bench" / "results" / "sweep.json"
PAGE = ROOT / "docs" / "reference" / "crash-sweep.md"
MOMENTS = {
    "before": "killed before",
    "after": "killed after",
    "late": "committed late",
    "soon": "committed soon",
    "term": "SIGTERM",
    "stale": "old lists",
    "rival": "frozen rival",
    "lost": "event lost",
    "delayed": "event late",
    "swapped": "events swapped",
    "busy": "busy",
    "slow": "slow",
    "away": "away",
}
HEAD = """\
<!-- Written by `make sweep`. Do not edit this page. -->

# Crash sweep

Results of `make sweep`: faults at each write of the operator in each lifecycle, and their kinds
([Faults and their tests](../decisions/faults.md)). A cell counts the lives with the same end, of
all lives.

"""


def render(found: dict[str, Any]) -> str:
    """The page for the content of the result file."""
    header = ["lifecycle", "writes", *MOMENTS.values()]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for name, life in found["lives"].items():
        cells = [_cell(life["marks"].get(moment, "")) for moment in MOMENTS]
        lines.append([name, str(len(life["writes"])), *cells])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    slow = "\n".join(
        f"- {name}: {'the same' if mark == '=' else 'not the same'}"
        for name, mark in found["tenSecondsAfterTheDefaultTimeout"].items()
    )
    count = f"{found['cells']} lives, {found['failed']} of them with another end."
    return f"""{HEAD}{count}

{table}

Requests that are committed 10 s after the default timeout of 30 s:

{slow}
"""


def _cell(marks: str) -> str:
    """How many of the lives ended the same. A write that did not come again disturbed nothing."""
    return f"{len(marks) - marks.count('!')}/{len(marks)}" if marks else ""
