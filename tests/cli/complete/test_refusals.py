"""Invalid command lines of `finetune complete` fail before anything is loaded or downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "missing MODEL: a folder, a name"),
        (("m", "-p", "a", "--n", "3", "--best-of", "2"), 2, "--best-of must be at least --n"),
        (("m", "-p", "a", "--stop", ""), 2, "--stop must not be empty"),
        (("m", "-p", "a", "-g", "user", "b"), 2, "--prompt and --message cannot be combined"),
        (("m", "-g", "robot", "b"), 2, "'robot' is not one of"),
        (("m", "-p", "a", "-t", "3"), 2, "3.0 is not in the range"),
        (("no/folder", "-p", "a"), 2, "there is no folder no/folder"),
        (("empty", "-p", "a"), 2, "empty contains no model: config.json is missing"),
        (("empty", "-p", "a", "--base", "empty"), 2, "contains no adapter"),
        (("adapter", "-p", "a"), 2, "no manifest with the address of its base model"),
        (("adapter", "-p", "a", "--base", "empty"), 2, "empty contains no model"),
        (("tiny:ft-acme-2026-11-21-12-00-00", "-p", "a"), 1, "there is no kubeconfig"),
    ],
)
def test_every_error_is_a_sentence(
    run: Run, home: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (home / "empty").mkdir()
    (home / "adapter").mkdir()
    (home / "adapter" / "adapter_config.json").write_text("{}")
    ran = run("complete", *arguments)
    assert (ran.returncode, words in ran.stderr) == (code, True), ran.stderr
    assert ran.stdout == ""


def test_without_torch_it_says_what_to_install(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    ran = run("complete", "m", "-p", "a")
    assert ran.returncode == 1
    assert "generating text on this machine requires the Python package torch" in ran.stderr
    assert "finetune-operator[trainer]" in ran.stderr


def test_a_literal_backslash_n_is_reported(run: Run, home: Path) -> None:
    ran = run("complete", "no/folder", "-p", r"a\n###")
    assert r"The prompt contains a literal \n" in ran.stderr
