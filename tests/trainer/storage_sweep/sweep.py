"""All cases of a sweep, and their results: `python -m tests.trainer.storage_sweep.sweep OUT`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from tests.trainer import support
from tests.trainer.storage_sweep.pods import Kill, Moment
from tests.trainer.storage_sweep.runs import Ended, Lifecycle, Preparation, Training


@dataclass(frozen=True)
class Verdict:
    """A case, and what is wrong with its end."""

    case: str
    problems: list[str]
    attempts: int
    was_killed: bool  # False: the write did not occur, because it depends on the clock
    seconds: float


class Sweep:
    """The cases of one lifecycle, from the writes of an undisturbed run."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._number = 1
        self.undisturbed = lifecycle.run(None, self._number)
        assert self.undisturbed.leftovers == [], self.undisturbed.leftovers
        assert self.undisturbed.attempts == 1

    @property
    def cases(self) -> list[Kill]:
        return [
            Kill(write, moment) for write in self.undisturbed.writes for moment in get_args(Moment)
        ]

    def run(self, kills: Sequence[Kill]) -> Iterator[Verdict]:
        for kill in kills:
            self._number += 1
            begin = time.monotonic()
            case = f"{self._lifecycle.name}: killed {kill}"
            try:
                ended = self._lifecycle.run(kill, self._number)
                found = self._problems(ended), ended.attempts, ended.was_killed
            except Exception as error:
                found = [f"{type(error).__name__}: {error}"], 0, False
            yield Verdict(case, *found, round(time.monotonic() - begin, 1))

    def _problems(self, ended: Ended) -> list[str]:
        expected, found = self.undisturbed.results, ended.results
        return [
            *(f"differs: {name}" for name in sorted(expected) if found.get(name) != expected[name]),
            *(f"is new: {name}" for name in sorted(set(found) - set(expected))),
            *(f"left behind: {name}" for name in ended.leftovers),
        ]


def main() -> int:
    """Run all cases, write their results, and return the exit code."""
    from moto.server import ThreadedMotoServer

    parser = argparse.ArgumentParser(prog="storage_sweep", description=main.__doc__)
    parser.add_argument("out", type=Path, help="JSON file for the results")
    parser.add_argument("--minutes", type=float, default=240.0, help="for each lifecycle")
    parser.add_argument("--only", default="", help="cases that contain this text")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    target = f"http://{host}:{port}"
    os.environ |= {
        **{"AWS_ENDPOINT_URL": target, "AWS_REGION": "us-east-1"},
        **{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    }
    storage = open_storage()
    storage._client.create_bucket(Bucket=support.BUCKET)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for lifecycle in _lifecycles(storage, target, Path(folder)):
            results[lifecycle.name] = _sweep(lifecycle, options.minutes, options.only)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    server.stop()
    return int(any(part["failed"] for part in results.values()))


def _lifecycles(storage: Storage, target: str, folder: Path) -> Iterator[Lifecycle]:
    yield Training(storage, target, folder / "train")
    yield Preparation(storage, target, folder / "prepare")


def _sweep(lifecycle: Lifecycle, minutes: float, only: str) -> dict[str, Any]:
    sweep = Sweep(lifecycle)
    begin = time.monotonic()
    failed: dict[str, list[str]] = {}
    attempts = ran = killed = 0
    cases = [case for case in sweep.cases if only in str(case)]
    random.Random(0).shuffle(cases)  # a sweep that has to end early has seen all kinds of writes
    for verdict in sweep.run(cases):
        attempts += verdict.attempts
        ran += 1
        killed += verdict.was_killed
        state = "; ".join(verdict.problems) or f"equal after {verdict.attempts} attempts"
        print(f"{verdict.seconds:5.1f} s  {verdict.case}: {state}", flush=True)
        if verdict.problems:
            failed[verdict.case] = verdict.problems
        if time.monotonic() - begin > 60 * minutes:
            break
    return {
        "writes": sweep.undisturbed.writes,
        "cases": len(cases),
        "ran": ran,
        "killed": killed,
        "attempts": attempts,
        "failed": failed,
        "seconds": round(time.monotonic() - begin),
    }


if __name__ == "__main__":
    sys.exit(main())
