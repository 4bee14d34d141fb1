"""Options of the whole suite, which files a run imports, and their order."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The machine is noisy: no property depends on the time that an example takes.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# The files that take longest run first, so that no process is left with one of them at the end.
LONGEST = (
    *("test_crash_sweep.py", "test_watches.py", "test_faults.py", "test_scheduling.py"),
    *("test_one_machine.py", "test_gangs.py", "test_moves.py", "test_namespace_deletion.py"),
    *("test_ranks.py", "test_run.py", "test_serve.py", "test_pods.py", "test_memory_states.py"),
    *("test_storage_faults.py", "test_file_load.py", "test_loading_ranks.py", "test_kills.py"),
    *("test_hostile_files.py", "test_restoring.py", "test_activations.py", "test_gallery_runs.py"),
)
# It takes the cluster down, in which the fixtures of other files keep namespaces and models.
BEFORE_OTHERS = ("test_cluster.py",)
MODULE_MARKS = re.compile(r"^pytestmark = (?:\[[^\]]*\]|.*)", re.MULTILINE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the order of LONGEST, for `--dist loadfile --no-loadscope-reorder`, if processes share."""
    first = LONGEST if hasattr(config, "workerinput") else BEFORE_OTHERS
    order = {name: place for place, name in enumerate(first)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


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
