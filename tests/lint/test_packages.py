"""A package that a list lacks is reported with the list to change."""

import shutil
from pathlib import Path

import pytest

from images.context import ROOT
from lint.packages import check_packages
from lint.problem import product_packages


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files with lists, and empty packages."""
    for name in ("pyproject.toml", "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path / name)
    for package in product_packages():
        add_package(tmp_path, package.relative_to(ROOT).as_posix())
    return tmp_path


def add_package(root: Path, folder: str) -> None:
    (root / folder).mkdir(parents=True)
    (root / folder / "__init__.py").touch()


def test_the_lists_of_this_checkout_are_complete(checkout: Path) -> None:
    assert list(check_packages(checkout)) == []


def test_a_new_package_is_missing_in_four_lists(checkout: Path) -> None:
    add_package(checkout, "archive/finetune_archive")
    messages = [problem.message for problem in check_packages(checkout)]
    assert messages == [
        "archive/finetune_archive is missing in [tool.hatch.build.targets.wheel]. Add it.",
        "finetune_archive is missing in root_packages. Add it.",
        "finetune_archive is missing in [[tool.importlinter.contracts]]. Add it.",
        "no image contains archive/finetune_archive. Add its folder to a COPY line.",
    ]


def test_a_package_that_no_longer_exists_is_reported(checkout: Path) -> None:
    shutil.rmtree(checkout / "cli")
    assert [problem.message for problem in check_packages(checkout)] == [
        "[tool.hatch.build.targets.wheel] names cli/finetune_cli. Remove it.",
        "root_packages names finetune_cli. Remove it.",
        "[[tool.importlinter.contracts]] names finetune_cli. Remove it.",
    ]
