"""`python -m examples.demo`: exits with 0 if the results meet the expectations."""

from __future__ import annotations

import argparse
import sys

from examples.demo.demo import PROVIDERS, choose, run_demo
from examples.demo.kind import STOP
from examples.demo.terminal import DemoError, Terminal


def main() -> int:
    """Run the demo; on a failure, print one sentence and return 1."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Run two fine-tunes on a real Kubernetes cluster, from the data to the model. "
        "README.md has the requirements.",
    )
    parser.add_argument(
        "--cluster",
        choices=PROVIDERS,
        default=PROVIDERS[0],
        help="devcluster: built from source on this machine, as root, or the cluster that "
        "KUBECONFIG names; kind: in Docker (default: %(default)s)",
    )
    options = parser.parse_args()
    terminal = Terminal()
    try:
        run_demo(terminal, choose(options.cluster))
    except DemoError as error:
        terminal.end_live()
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        terminal.end_live()
        print(
            "\ndemo: interrupted. If the cluster is running, it keeps running. To stop it: "
            + (STOP if options.cluster == "kind" else "python3 -m devcluster down"),
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
