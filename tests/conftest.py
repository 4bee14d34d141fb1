"""Options of the whole suite, and how two processes share its real API servers."""

from __future__ import annotations

import gc
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# The machine is noisy: no property depends on the time that an example takes.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# One API server for all of this folder: its last test counts the rights that the others used.
TOGETHER = "integration"
# These have API servers of their own, or use no further right. They balance the two processes.
APART = {
    "test_versions.py": "versions",
    "test_lives.py": "lives",
    "test_crash_sweep.py": "lives",
    "test_scheduling.py": "scheduling",
    "test_gangs.py": "gangs",
    "test_kueue.py": "kueue",
}


MODULE_MARKS = re.compile(r"^pytestmark = (?:\[[^\]]*\]|.*)", re.MULTILINE)


class Groups(LoadScopeScheduling):
    """`--dist loadgroup`: each group runs in one process, and the longest group begins first.

    The marker `xdist_group` does not do it: pytest 9.2 ignores what pytest-xdist 3.8 adds to the
    id of a test.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The group of the test: its file, outside of the folder."""
    path = PurePosixPath(nodeid.split("::", maxsplit=1)[0])
    if path.parent.name != TOGETHER:
        return str(path)
    return APART.get(path.name, TOGETHER)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups | None:
    return Groups(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file that has no test of the marks in `-m`: all imports take half a minute."""
    if not (collection_path.is_file() and collection_path.name.startswith("test_")):
        return None
    wanted, unwanted = marks_of(config.getoption("markexpr"))
    text = collection_path.read_text()
    whole = set(re.findall(r"mark\.(\w+)", "".join(MODULE_MARKS.findall(text))))
    is_out = whole & unwanted or any(f"mark.{name}" not in text for name in wanted)
    return True if is_out else None


def marks_of(expression: str) -> tuple[set[str], set[str]]:
    """The marks that every test needs, and those that none may have; `or` means anything."""
    if " or " in expression or "(" in expression:
        return set(), set()
    parts = [part.split() for part in expression.split(" and ") if part.strip()]
    unwanted = {part[1] for part in parts if part[0] == "not"}
    return {part[0] for part in parts if part[0] != "not"}, unwanted


def pytest_collection_finish() -> None:
    """The tests and the libraries stay: no collection of garbage needs to scan them."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing"
    )
