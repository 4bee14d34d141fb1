"""Renders the results of the crash sweep, from the file that `make sweep` writes."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "sweep.json"
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


def pages() -> dict[str, str]:
    """Map the page to its text."""
    return {"reference/crash-sweep.md": render(json.loads(RESULTS.read_text()))}


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
