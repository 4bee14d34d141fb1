"""Writes the reference pages, and the tables of metrics inside two hand-written ones.

python -m docs.generate           write them
python -m docs.generate --check   only compare; exit code 1 where a file differs
"""

import argparse
import sys
from pathlib import Path

from docs.generator import commands, fields, metrics, reasons, values

DOCS = Path(__file__).resolve().parent


def rendered() -> dict[str, str]:
    """Page below docs/ -> text."""
    sources = (fields, reasons, commands, values, metrics)
    return {page: text for source in sources for page, text in source.pages().items()}


def stale() -> list[str]:
    """Pages that are not what the code says, and pages in reference/ that nothing makes."""
    made = rendered()
    there = {path.relative_to(DOCS).as_posix() for path in (DOCS / "reference").glob("*.md")}
    differing = [page for page, text in made.items() if _text(page) != text]
    return sorted([*differing, *(there - set(made))])


def _text(page: str) -> str | None:
    path = DOCS / page
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Write or check the generated pages.")
    parser.add_argument("--check", action="store_true", help="compare only; 1 where one differs")
    check = parser.parse_args().check
    pages = stale()
    what = "differs from the code, run `make generate`" if check else "written"
    for page in pages:
        print(f"{what}: docs/{page}")
    if check:
        return 1 if pages else 0
    for page, text in rendered().items():
        (DOCS / page).parent.mkdir(exist_ok=True)
        (DOCS / page).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
