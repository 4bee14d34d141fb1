"""Runs many cells in parallel, tells the progress, and writes the results."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

from devcluster import gotools
from devcluster.controlplane import ControlPlane
from docs import generate
from docs.generator.crash_sweep import RESULTS
from tests.integration.conftest import ROOT, serve_progress
from tests.integration.sweep.api import Api
from tests.integration.sweep.cells import Place, Result, run
from tests.integration.sweep.faults import (
    AllTheTime,
    AtEvent,
    AtWrite,
    AtWriteOfFew,
    Cell,
    is_creation_or_deletion,
)
from tests.integration.sweep.lifecycles import LIFECYCLES, PUBLISHING
from tests.support.objects import progress

Moment = AtWrite | AtWriteOfFew | AtEvent | AllTheTime
FEW = ("success", "retry", "cancel-running", "suspend-and-resume", "serving")  # for AtWriteOfFew
LONG = (*FEW, "preemption", "model-deletion")  # for busy and slow
PARTS = 40
PART = "SWEEP_PART"  # environment variable: the part to run instead of the commit's
LIVES = "SWEEP_LIVES"  # environment variable: the number of lives at the same time
TELL_SECONDS = 10.0
DEFAULT_TIMEOUT_SECONDS = 30.0
# A request of each verb is committed 10 s after the default timeout.
SLOW_CELLS = tuple(
    Cell(lifecycle, 1, "late", DEFAULT_TIMEOUT_SECONDS, method)
    for lifecycle, method in (
        ("cancel-starting", "POST"),
        ("cancel-running", "PATCH"),
        ("suspend-and-resume", "DELETE"),
    )
)


@contextmanager
def place() -> Iterator[Place]:
    """A control plane with controllers, and the progress of a rank 0 that publishes."""
    helm = Path(gotools.cli_folder()) / "helm"
    with ExitStack() as stack:
        crds = [ROOT / "crds" / name for name in ("finetunes.yaml", "models.yaml")]
        plane = stack.enter_context(ControlPlane(controller_manager=True, crds=crds))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        report = progress(stage="publishing", step=50, epoch=2).to_dict()
        stack.enter_context(serve_progress(PUBLISHING, report))
        yield Place(Api.connect(plane.kubeconfig, folder), plane.authority, helm)


def commit() -> str:
    """The commit of the working tree; nothing outside of a checkout."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def chosen_part() -> int:
    """The part of the cells that the tests run: it depends on the commit."""
    return int(os.environ.get(PART) or int(commit()[:8] or "0", 16)) % PARTS


class Sweep:
    """The cells of lifecycles, and their results."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lives = int(os.environ.get(LIVES) or 6)
        self.calm: dict[str, Result] = {}
        self.results: list[Result] = []
        self.ends = float("inf")  # time.monotonic(), after which no life starts

    def run_calm(self, lifecycles: list[str]) -> None:
        """Run each lifecycle without a fault, which shows its writes and its outcome."""
        for result in self._run([Cell(name) for name in lifecycles]):
            assert result.error is None, f"{result.cell}: {result.error}"
            self.calm[result.cell.lifecycle] = result

    def cells(self, name: str, *moments: Moment) -> list[Cell]:
        """The cells of a lifecycle: one for each write or event, and each moment."""
        calm = self.calm[name]
        numbers = {
            AtEvent: range(1, calm.events + 1),
            AllTheTime: range(1, 2),
        }
        at_writes = range(calm.first, len(calm.writes) + 1)
        return [
            Cell(name, number, moment)
            for moment in moments
            for number in next(
                (found for kind, found in numbers.items() if moment in get_args(kind)), at_writes
            )
            if moment != "soon" or is_creation_or_deletion(*calm.writes[number - 1].split(" "))
        ]

    def all_cells(self) -> list[Cell]:
        """The cells of the lifecycles that ran undisturbed, in a stable order."""
        return [
            cell
            for name in self.calm
            for cell in [
                *self.cells(name, *get_args(AtWrite)),
                *(self.cells(name, *get_args(AtWriteOfFew)) if name in FEW else ()),
                *(self.cells(name, *get_args(AtEvent)) if name == "success" else ()),
                *(self.cells(name, "busy", "slow") if name in LONG else ()),
                *self.cells(name, "away"),
            ]
        ]

    def run_cells(self, cells: list[Cell]) -> list[Result]:
        results = self._run(cells)
        self.results += results
        return results

    @property
    def failures(self) -> list[str]:
        return [f"{item.cell} ({item.hit}): {item.error}" for item in self.results if item.error]

    def _run(self, cells: list[Cell]) -> list[Result]:
        began = told = time.monotonic()
        results: list[Result] = []
        with ThreadPoolExecutor(self._lives) as threads:
            runs = [threads.submit(self._run_in_time, cell) for cell in cells]
            for done in as_completed(runs):
                result = done.result()
                if result is None:
                    continue
                results.append(result)
                if result.error:
                    print(f"sweep: {result.cell} ({result.hit}): {result.error}", flush=True)
                now = time.monotonic()
                if now - told > TELL_SECONDS or len(results) == len(cells):
                    told = now
                    bad = sum(item.error is not None for item in results)
                    print(
                        f"sweep: {len(results)} of {len(cells)} lives, {bad} failed, "
                        f"{now - began:.0f} s",
                        flush=True,
                    )
        return results

    def _run_in_time(self, cell: Cell) -> Result | None:
        if time.monotonic() > self.ends:
            return None
        return run(self._place, cell, self.calm.get(cell.lifecycle))

    def to_json(self) -> dict[str, Any]:
        """For each lifecycle the writes, and for each moment one character for each of them."""
        lives: dict[str, Any] = {}
        for name, calm in sorted(self.calm.items()):
            marks: dict[str, str] = {}
            for cell, result in sorted(self._of(name).items(), key=lambda pair: pair[0].number):
                marks[cell.moment] = marks.get(cell.moment, "") + _mark(result)
            writes = list(calm.writes[calm.first - 1 :])
            lives[name] = {"writes": writes, "outcome": calm.outcome, "marks": marks}
        slow = {str(item.cell): _mark(item) for item in self.results if item.cell.method}
        return {
            "commit": commit(),
            "cells": len(self.results),
            "failed": len(self.failures),
            "legend": "= the outcome is the same, ! it is not, - the write or event did not come",
            "lives": lives,
            "tenSecondsAfterTheDefaultTimeout": slow,
        }

    def _of(self, lifecycle: str) -> dict[Cell, Result]:
        return {
            item.cell: item
            for item in self.results
            if item.cell.lifecycle == lifecycle and not item.cell.method
        }


def _mark(result: Result) -> str:
    if result.error:
        return "!"
    return "=" if result.hit or result.cell.moment in get_args(AllTheTime) else "-"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.sweep.sweep")
    parser.description = "Run all cells, or some, and write the result file and its page."
    parser.add_argument("lifecycles", nargs="*", help="Lifecycles to run (default: all).")
    parser.add_argument("--part", type=int, help="Run only this fortieth of the cells (0 to 39).")
    parser.add_argument("--minutes", type=float, help="Start no life later than this.")
    parser.add_argument("--dry", action="store_true", help="Write no files.")
    options = parser.parse_args(arguments)
    chosen = options.lifecycles or list(LIFECYCLES)
    with place() as where:
        sweep = Sweep(where)
        sweep.run_calm(chosen)
        slow = [cell for cell in SLOW_CELLS if cell.lifecycle in chosen]
        cells = sweep.all_cells()
        if options.part is not None:
            cells = cells[options.part :: PARTS]
        if options.minutes is not None:
            sweep.ends = time.monotonic() + 60 * options.minutes
        sweep.run_cells([*slow, *cells])
    if not options.dry:
        found = sweep.to_json()
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        generate.main([])
        print(f"sweep: wrote {RESULTS} and its page")
    print("\n\n".join(sweep.failures))
    print(f"sweep: {len(sweep.results)} cells, {len(sweep.failures)} failed")
    return 1 if sweep.failures else 0


if __name__ == "__main__":
    sys.exit(main())
