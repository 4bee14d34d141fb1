"""Which files a run imports, and with which of them it begins."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.conftest import (
    BEFORE_OTHERS,
    LONGEST,
    marks_of,
    pytest_collection_modifyitems,
    pytest_ignore_collect,
)

ROOT = Path(__file__).resolve().parents[1]


def test_the_files_that_begin_exist() -> None:
    found = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert {*LONGEST, *BEFORE_OTHERS} <= found


@pytest.mark.parametrize(
    ("config", "order"),
    [
        # One process runs the tests of the cluster: none may lose the cluster of its fixtures.
        (Mock(spec=[]), ["test_cluster.py", "test_api.py", "test_faults.py", "test_kueue.py"]),
        (
            Mock(workerinput={}),
            ["test_faults.py", "test_api.py", "test_cluster.py", "test_kueue.py"],
        ),
    ],
    ids=["one process", "several"],
)
def test_the_order_of_the_files(config: Mock, order: list[str]) -> None:
    names = ["test_api.py", "test_cluster.py", "test_faults.py", "test_kueue.py"]
    items: list[pytest.Item] = [Mock(path=Path(name)) for name in names]
    pytest_collection_modifyitems(config, items)
    assert [item.path.name for item in items] == order


@pytest.mark.parametrize(
    ("expression", "wanted", "unwanted"),
    [
        ("", set(), set()),
        ("slow", {"slow"}, set()),
        ("slow and not integration and not cluster", {"slow"}, {"integration", "cluster"}),
        ("slow or cluster", set(), set()),
        ("not (slow or cluster)", set(), set()),
    ],
)
def test_the_marks_of_an_expression(expression: str, wanted: set[str], unwanted: set[str]) -> None:
    assert marks_of(expression) == (wanted, unwanted)


SOME = "import pytest\n\n\n@pytest.mark.slow\ndef test(): ...\n"
ALL = "import pytest\n\npytestmark = [pytest.mark.timeout(9), pytest.mark.slow]\n"
ALONE = "import pytest\n\npytestmark = pytest.mark.slow  # it starts processes\n"


@pytest.mark.parametrize(
    ("text", "expression", "is_imported"),
    [
        (SOME, "slow", True),
        (SOME, "not slow", True),
        (ALL, "slow", True),
        (ALL, "not slow", False),
        (ALONE, "not integration and not slow", False),
        (ALL, "slow and not integration", True),
        (ALL, "integration", False),
        (ALL, "", True),
        ("def test(): ...\n", "not slow", True),
        ("def test(): ...\n", "slow", False),
    ],
)
def test_a_file_without_a_test_of_the_marks_is_not_imported(
    text: str, expression: str, is_imported: bool, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(text)
    config = Mock(getoption=Mock(return_value=expression))
    assert pytest_ignore_collect(tmp_path / "test_it.py", config) is (None if is_imported else True)
