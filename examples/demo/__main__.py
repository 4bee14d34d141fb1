"""`python -m examples.demo`: 0 when everything came out as promised."""

from __future__ import annotations

import sys

from examples.demo.story import tell
from examples.demo.terminal import DemoError, Terminal


def main() -> int:
    """Tell the story; one clear sentence and exit code 1 when it ends badly."""
    if len(sys.argv) > 1:
        print("usage: python -m examples.demo   (no options; README.md says what it needs)")
        return 0 if sys.argv[1] in {"-h", "--help"} else 2
    terminal = Terminal()
    try:
        tell(terminal)
    except DemoError as error:
        terminal.end_live()
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        terminal.end_live()
        print(
            "\ndemo: interrupted. The cluster, if it is up, stays up: "
            "`python3 -m devcluster down` stops it.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
