"""The final table: every figure of the last attempts, with its limit and its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.gpu.device import REHEARSAL
from bench.gpu.parts import PARTS, Part
from bench.gpu.results import Results, Row

SHARE = 0.7  # of the limit of a speed; eager layers leave gaps between their kernels


def lines(results: Results, parts: Sequence[Part] = PARTS) -> Iterator[str]:
    """The lines of the table. A speed is compared with the limit that `roofline` computed."""
    limits = limits_of(results)
    yield f"  {'':4} {'part':<16} {'':<52} {'measured':>18} {'limit':>14} {'share':>6}  target"
    for part in parts:
        if part.module == "limits":
            continue
        rows = results.last(part.name)
        for row in rows:
            if "name" in row:
                yield figure(row, limits.get((part.name, row["name"])))
        yield end(part, results.end(part.name))


def limits_of(results: Results) -> dict[tuple[str, str], float]:
    """The limits of speeds by part and name."""
    rows = [row for part in PARTS if part.module == "limits" for row in results.last(part.name)]
    return {
        (row["details"]["part"], row["details"]["name"]): row["value"]
        for row in rows
        if "name" in row
    }


def figure(row: Row, limit: float | None) -> str:
    """One measurement."""
    value, target, is_met = row["value"], row["target"], row["is_met"]
    share = ""
    if limit and value:
        share = f"{value / limit:.2f}"
        if row["card"] != REHEARSAL:
            target, is_met = f">= {SHARE} of the limit", value / limit >= SHARE
    verdict = ("ok" if is_met else "MISS") if target else ""
    bound = shown(limit, "") if limit else ""
    measured = shown(value, row["unit"])
    return (
        f"  {verdict:4} {row['part']:<16} {row['name']:<52} {measured:>18} {bound:>14} {share:>6}"
        f"  {target or ''}"
    )


def end(part: Part, row: Row | None) -> str:
    """The line after the figures of a part."""
    if row is None:
        return f"  {'':4} {part.name:<16} not run"
    verdict = "" if row["status"] in {"passed", "skipped"} else "MISS"
    message = f": {row['message']}" if row["message"] else ""
    return f"  {verdict:4} {part.name:<16} {row['status']} in {row['seconds']:.0f} s{message}"


def shown(value: float | None, unit: str) -> str:
    """A number with four digits that matter, and its unit."""
    if value is None:
        return "not a number"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number} {unit}".rstrip()
