"""`python -m examples.demo`: exits with 0 if the results meet the expectations."""

from __future__ import annotations

import sys

from examples.demo.demo import run_demo
from examples.demo.terminal import DemoError, Terminal


def main() -> int:
    """Run the demo; on a failure, print one sentence and return 1."""
    if len(sys.argv) > 1:
        print("usage: python -m examples.demo   (no options; README.md has the requirements)")
        return 0 if sys.argv[1] in {"-h", "--help"} else 2
    terminal = Terminal()
    try:
        run_demo(terminal)
    except DemoError as error:
        terminal.end_live()
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        terminal.end_live()
        print(
            "\ndemo: interrupted. If the cluster is running, it keeps running. To stop it: "
            "python3 -m devcluster down",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
