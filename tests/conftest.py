"""Options of the whole suite, and how two processes share its real API servers."""

from pathlib import Path

import pytest

# One API server for all of this folder: its last test counts the rights that the others used.
TOGETHER = Path(__file__).resolve().parent / "integration"
# These use no further right, and balance the two processes.
APART = [TOGETHER / name for name in ("test_versions.py", "test_lives.py", "test_crash_sweep.py")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest group begins first; the other process does the rest (`--dist loadgroup`)."""
    for item in items:
        if item.path.is_relative_to(TOGETHER) and item.path not in APART:
            item.add_marker(pytest.mark.xdist_group("integration"))
        elif item.path in APART[1:]:
            item.add_marker(pytest.mark.xdist_group("lives"))  # they share an API server
    items.sort(key=lambda item: not item.path.is_relative_to(TOGETHER))
