"""`python -m bench.gateway`: what the gateway adds to a completion, its memory, and its lists."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from dataclasses import asdict

from bench.gateway.installed import measure_installed
from bench.gateway.load import Pair, at_once, completions, percentile, streams
from bench.gateway.processes import Subject, running
from bench.machine import median, refuse_when_loaded, save
from bench.table import Line, row

IDLE_SECONDS = 5.0
CLIENTS = 16
P50, P99 = 0.5, 0.99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="in each round (default: 1000)")
    parser.add_argument("--force", action="store_true", help="run on a busy machine as well")
    options = parser.parse_args()
    refuse_when_loaded(is_forced=options.force)
    load = os.getloadavg()[0]
    with running() as subject:
        lines = measure(subject, options.rounds, options.requests)
    lines += measure_installed()
    print(f"load {load:.2f} at the start; medians and ranges of {options.rounds} rounds")
    for line in lines:
        print(row(line))
    saved = {"load": load, "requests": options.requests, "lines": [asdict(it) for it in lines]}
    print(f"written: {save('gateway', saved)}")


def measure(subject: Subject, rounds: int, requests: int) -> list[Line]:
    time.sleep(IDLE_SECONDS)
    idle = subject.resident_mb()
    alone: list[Pair] = []
    first: list[Pair] = []
    whole: list[Pair] = []
    rates: list[float] = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        alone.append(asyncio.run(completions(subject, requests)))
        begun, ended = asyncio.run(streams(subject, max(requests // 10, 1)))
        first.append(begun)
        whole.append(ended)
        rates.append(asyncio.run(at_once(subject, CLIENTS, max(requests // CLIENTS, 1))))
    return evaluate(alone, first, whole, rates, (idle, subject.resident_mb()))


def evaluate(
    alone: list[Pair],
    first: list[Pair],
    whole: list[Pair],
    rates: list[float],
    memory: tuple[float, float],
) -> list[Line]:
    """The lines of the table. memory: of the gateway, idle and at the end, in MB."""

    def added(part: str, name: str, pairs: list[Pair], share: float, target: str | None) -> Line:
        values = [pair.added(share) for pair in pairs]
        return Line(part, name, values, "ms", median(values) if target else None, target)

    direct = [percentile(pair.direct, P50) for pair in alone]
    return [
        Line("completion", "the server itself, p50", direct, "ms"),
        added("completion", "added by the gateway, p50", alone, P50, "<= 5"),
        added("completion", "added by the gateway, p99", alone, P99, "<= 20"),
        added("stream", "added to the first part, p50", first, P50, None),
        added("stream", "added to 100 parts, p50", whole, P50, None),
        Line("at once", f"completions per second, {CLIENTS} clients", rates, "/s"),
        Line("memory", "idle", [memory[0]], "MB", memory[0], "<= 100"),
        Line("memory", "after all requests", [memory[1]], "MB"),
    ]


if __name__ == "__main__":
    main()
