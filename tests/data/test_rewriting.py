"""The second pass overwrites nothing and leaves no partial file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune_data.lint.fixes import AddText, LeaveOut, LowerCase
from finetune_data.rewrite import rewriting
from finetune_data.rewrite.rewriting import kept_by, rewrite
from finetune_data.rewrite.train_validation_split import Split
from tests.data.builders import reader
from tests.data.lint.support import jsonl

PAIRS = [(f"P{n}", f" c{n}") for n in range(5)]


def test_fixes_are_applied_in_their_order_and_nothing_is_overwritten(tmp_path: Path) -> None:
    fixes = [
        AddText("ending", "", "prompt", " ->"),
        LowerCase("lower", "", "prompt"),
        LeaveOut("out", "", np.array([True, False, False, False, True])),
    ]
    training = reader(jsonl(PAIRS))
    [first] = rewrite([training], fixes, tmp_path, "a")
    assert (first.path.name, first.examples) == ("a_prepared.jsonl", 3)
    assert first.path.read_text().splitlines()[0] == '{"prompt":"p1 ->","completion":" c1"}'
    [second] = rewrite([training], fixes[::-1], tmp_path, "a")
    assert second.path.name == "a_prepared-1.jsonl"
    assert second.path.read_bytes() == first.path.read_bytes()
    assert kept_by(fixes, 5).tolist() == [False, True, True, True, False]


def test_a_split_makes_two_files_of_one_number(tmp_path: Path) -> None:
    (tmp_path / "a_prepared_valid.jsonl").write_text("mine")
    split = Split(np.array([False, True, False, False, True]))
    train, valid = rewrite([reader(jsonl(PAIRS))], [], tmp_path, "a", split=split)
    assert (train.path.name, valid.path.name) == (
        "a_prepared_train-1.jsonl",
        "a_prepared_valid-1.jsonl",
    )
    assert (train.examples, valid.examples) == (3, 2)
    assert (tmp_path / "a_prepared_valid.jsonl").read_text() == "mine"


def test_an_error_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(example: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rewriting, "to_line", fail)
    with pytest.raises(OSError, match="No space"):
        rewrite([reader(jsonl(PAIRS))], [], tmp_path / "out", "a")
    assert list((tmp_path / "out").iterdir()) == []
