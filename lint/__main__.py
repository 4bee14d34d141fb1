"""`python -m lint [CHECK ...]`: run the project's own checks and print what they find."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lint.cycles import check_cycles
from lint.packages import check_packages
from lint.problem import ROOT, Problem
from lint.prose import check_prose
from lint.sizes import check_sizes

CHECKS: dict[str, Callable[[], Iterator[Problem]]] = {
    "sizes": check_sizes,
    "cycles": check_cycles,
    "packages": check_packages,
    "prose": check_prose,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m lint",
        description="Check sizes, import cycles, package lists, and prose. Exit code 1: problems.",
    )
    made.add_argument(
        "checks", nargs="*", metavar="CHECK", help=f"{', '.join(CHECKS)} (default: all)"
    )
    made.add_argument("--summary", action="store_true", help="print a count for each file")
    made.add_argument(
        "--path", action="append", default=[], help="report only paths that start with PATH"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; return the exit code."""
    top = parser()
    options = top.parse_args(arguments)
    if unknown := sorted(set(options.checks) - set(CHECKS)):
        top.error(f"unknown check {unknown[0]!r}. Use one of: {', '.join(CHECKS)}")
    prefixes = tuple(Path(path).as_posix() for path in options.path)
    problems = [
        problem
        for name in options.checks or CHECKS
        for problem in CHECKS[name]()
        if not prefixes or problem.path.startswith(prefixes)
    ]
    if options.summary:
        for path, count in Counter(problem.path for problem in problems).most_common():
            print(f"{count:5}  {path}")
    else:
        for problem in problems:
            print(problem)
    if problems:
        print(f"{len(problems)} problems in {ROOT.name}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
