"""Write the reference pages, and the tables of metrics inside two hand-written pages.

python -m docs.generate           write the pages
python -m docs.generate --check   only compare; the exit code is 1 if a page differs
"""

import argparse
import sys
from pathlib import Path

from docs.generator import commands, crash_sweep, fields, memory, metrics, reasons, values

DOCS = Path(__file__).resolve().parent


def rendered() -> dict[str, str]:
    """Map each page below docs/ to its text."""
    sources = (fields, reasons, commands, values, metrics, memory, crash_sweep)
    return {page: text for source in sources for page, text in source.pages().items()}


def stale() -> list[str]:
    """Pages that differ from the code, and pages in reference/ that no module generates."""
    made = rendered()
    there = {path.relative_to(DOCS).as_posix() for path in (DOCS / "reference").glob("*.md")}
    differing = [page for page, text in made.items() if _text(page) != text]
    return sorted([*differing, *(there - set(made))])


def _text(page: str) -> str | None:
    path = DOCS / page
    return path.read_text(encoding="utf-8") if path.exists() else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write or check the generated pages.")
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args(arguments).check
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
