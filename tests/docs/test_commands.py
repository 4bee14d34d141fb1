"""Runs the commands that need no cluster, unchanged."""

import json
import shutil
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks_for, pages_with
from tests.docs.sessions import environment, first_missing, run_page
from tests.support.tiny_model import make_word_model

TRAINING = set(pages_with("train"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy the examples of the repository to a folder."""
    made = tmp_path / "repository"
    made.mkdir()
    shutil.copytree(ROOT / "examples", made / "examples")
    return made


@pytest.mark.parametrize("page", sorted(set(pages_with("run")) - TRAINING))
def test_commands_without_a_cluster_run(page: str, folder: Path, tmp_path: Path) -> None:
    run_page(blocks_for(page, "run"), folder, environment(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(TRAINING))
def test_commands_that_train_here_run(page: str, folder: Path, tmp_path: Path) -> None:
    make_word_model(folder / "base-model")
    rows = [{"prompt": f"the fox {n} ->", "completion": " yes"} for n in range(16)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_page(blocks_for(page, "run", "train"), folder, environment(tmp_path))


@pytest.mark.parametrize(
    ("expected", "actual", "missing"),
    [
        ("a\nb\n", "a\nx\nb\n", None),
        ("b\na\n", "a\nb\n", "a"),
        ("a ... c\n", "a   long b   c\n", None),
        ("a ... c\n", "a b\n", "a ... c"),
        ("...\nz\n", "a\n", "z"),
        ("", "anything\n", None),
        ("a\na\n", "a\n", "a"),
    ],
)
def test_shown_output_is_compared_line_by_line(
    expected: str, actual: str, missing: str | None
) -> None:
    assert first_missing(expected, actual) == missing


def test_a_command_that_fails_fails_the_page(folder: Path, tmp_path: Path) -> None:
    ((block, _), *_) = blocks_for("how-to/weekly.md", "run")
    broken = type(block)(block.page, 1, "bash", block.classes, "echo before\nfalse\n")
    with pytest.raises(AssertionError, match=r"weekly\.md:1 failed"):
        run_page([(broken, "")], folder, environment(tmp_path))
