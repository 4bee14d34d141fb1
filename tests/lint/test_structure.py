"""Sizes and import cycles, in a planted product package."""

import itertools
from pathlib import Path

import pytest

from lint.cycles import check_cycles
from lint.sizes import MOST_FILES, MOST_LINES, check_sizes

names = (f"finetune_planted{number}" for number in itertools.count())


def plant(root: Path, files: dict[str, str]) -> str:
    """Write a product package and return its name; each test gets a name of its own."""
    name = next(names)
    for path, text in {"__init__.py": "", **files}.items():
        file = root / "room" / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("PACKAGE", name), encoding="utf-8")
    return name


def test_a_folder_with_too_many_files_is_reported(tmp_path: Path) -> None:
    plant(tmp_path, {f"part/m{number}.py": "" for number in range(MOST_FILES + 1)})
    (problem,) = check_sizes(tmp_path)
    assert problem.path.endswith("/part")
    assert "21 Python files in one folder, the limit is 20" in problem.message


def test_a_long_file_is_reported_at_the_first_line_beyond_the_limit(tmp_path: Path) -> None:
    plant(tmp_path, {"long.py": "\n" * (MOST_LINES + 1), "short.py": "\n" * MOST_LINES})
    (problem,) = check_sizes(tmp_path)
    assert problem.path.endswith("/long.py")
    assert problem.line == MOST_LINES + 1


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"a.py": "import PACKAGE.b\n", "b.py": "x = 1\n"}, []),
        (
            {"a.py": "import PACKAGE.b\n", "b.py": "\n\ndef f():\n    import PACKAGE.a\n"},
            ["a.py:1 files", "b.py:4 files"],
        ),
        (
            {
                "a.py": "import PACKAGE.b\n",
                "b.py": "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    import PACKAGE.a\n",
            },
            [],
        ),
        (
            {"part/__init__.py": "from PACKAGE.part.a import f\n", "part/a.py": "import PACKAGE\n"},
            [],
        ),
        (
            {
                "part/__init__.py": "from PACKAGE.part.a import f\n",
                "part/a.py": "import PACKAGE.part\n",
            },
            ["part/__init__.py:1 files", "part/a.py:1 files"],
        ),
    ],
    ids=["one direction", "function", "type checking", "parent", "through __init__"],
)
def test_imports_that_close_a_cycle_between_files_are_reported(
    tmp_path: Path, files: dict[str, str], found: list[str]
) -> None:
    name = plant(tmp_path, files)
    problems = [problem for problem in check_cycles(tmp_path) if "files" in problem.message]
    assert [
        f"{problem.path.removeprefix(f'room/{name}/')}:{problem.line} files" for problem in problems
    ] == found


def test_a_cycle_between_packages_whose_files_form_none_is_reported(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "one/__init__.py": "",
            "one/a.py": "import PACKAGE.two.a\n",
            "one/b.py": "",
            "two/__init__.py": "",
            "two/a.py": "",
            "two/b.py": "import PACKAGE.one.b\n",
        },
    )
    (problem,) = check_cycles(tmp_path)
    assert "closes a cycle between packages" in problem.message
