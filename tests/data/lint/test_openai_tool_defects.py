"""Tests that OpenAI's data preparation tool (openai-python 0.28.1) would fail."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from finetune_data.lint.fingerprints import ROW
from finetune_data.lint.inspection import inspect
from finetune_data.read.examples import Row
from finetune_data.read.findings import Finding
from finetune_data.rewrite.train_validation_split import plan_split
from finetune_data.tokenize.loading import load_tokenizer
from tests.data.builders import read, reader, write_tokenizer
from tests.data.lint.support import checks, fixed, inspect_pairs, jsonl, recommended, remark


def test_1_after_other_removals_only_the_long_row_is_removed(tmp_path: Path) -> None:
    """It mixed positions and labels after removals: it removed a good row, not the long one."""
    long = ("p4", "the lazy dog " * 40)
    pairs = [("p0", "a"), ("p0", "a"), ("p0", "a"), ("p3", "keep"), long, ("p5", "b")]
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "model"), "tiny")
    inspection, training = inspect_pairs(pairs, tokenizer=tokenizer, context=64)
    fixes = [fix for fix in inspection.fixes if fix.name in {"duplicates", "too-long"}]
    assert len(fixes) == 2
    kept = fixed(training, fixes, tmp_path / "out")
    assert [row.prompt for row in kept if isinstance(row, Row)] == ["p0", "p3", "p5"]


def test_2_the_cells_na_null_and_none_are_text() -> None:
    """It read them as missing values: prompts became empty, and completions were deleted."""
    words = ["NA", "null", "None", "nan", "N/A", "NULL", "", "#N/A"]
    data = "prompt,completion\n" + "".join(f"{word},{word}x\n" for word in words)
    rows = [one for one in read(data.encode(), "a.csv") if isinstance(one, Row)]
    assert [row.prompt for row in rows] == words
    assert [row.completion for row in rows] == [f"{word}x" for word in words]


def test_3_json_null_and_lists_are_errors_with_their_line() -> None:
    """They became the texts `None` and `['l']`, and true became `True`."""
    values = [None, ["l"], {"a": 1}, "b", True, 3]
    lines = [json.dumps({"prompt": "a", "completion": value}) for value in values]
    found = read("\n".join(lines).encode())
    rows = [one.completion for one in found if isinstance(one, Row)]
    assert rows == ["b", "true", "3"]
    kinds = ["empty", "an array", "an object"]
    for line, (one, kind) in enumerate(zip(found[:3], kinds, strict=True), 1):
        assert str(one).startswith(f'line {line}, column 31: "completion" is {kind}')


def test_4_one_row_is_enough_and_a_broken_line_affects_no_other() -> None:
    """It refused a single row, and rejected a file for one broken line, without its number."""
    assert len(read(jsonl([("a", "b")]))) == 1
    assert len(read(b'{\n "prompt": "a",\n "completion": "b"\n}', "a.json")) == 1
    broken = jsonl([("a", "b"), ("c", "d")]) + b'{"prompt": \n' + jsonl([("e", "f")])
    found = read(broken)
    assert [one.line for one in found if isinstance(one, Row)] == [1, 2, 4]
    assert [str(one)[:6] for one in found if isinstance(one, Finding)] == ["line 3"]


def test_5_labels_with_a_common_ending_get_no_stop_sequence() -> None:
    """It suggested stop=["tive"] for positive and negative."""
    pairs = [(f"text {n}", ("positive", "negative")[n % 2]) for n in range(40)]
    inspection, _ = inspect_pairs(pairs, profile="completion")
    assert inspection.kind == "classification"
    assert inspection.stop is None
    assert not any(check.startswith("completion-ending") for check in checks(inspection))
    open_answers = [(f"text {n}", f"word{n} active") for n in range(40)]
    assert inspect_pairs(open_answers)[0].stop == " active"
    half_words = [(f"text {n}", f"word{n}tive") for n in range(40)]
    assert inspect_pairs(half_words)[0].stop is None


def test_6_length_is_counted_in_the_models_own_tokens(tmp_path: Path) -> None:
    """Its limit was 10,000 characters in any language, which is wrong for Chinese and code."""
    tokenizer = load_tokenizer(write_tokenizer(tmp_path), "tiny")
    many_tokens = "中文" * 20  # 40 characters, and three bytes each that the tokenizer never saw
    few_tokens = " the lazy dog" * 10  # 130 characters
    pairs = [("a", many_tokens), ("b", few_tokens)]
    inspection, _ = inspect_pairs(pairs, tokenizer=tokenizer, context=100)
    found = remark(inspection, "too-long")
    assert found.count == 1
    assert found.places[0].startswith("line 1: ")
    assert inspection.length_unit == "tokens"
    assert "too-long" not in checks(inspect_pairs(pairs)[0])


def test_7_yes_accepts_nothing_that_loses_anything(tmp_path: Path) -> None:
    """With -q, it removed a shared instruction, lower-cased all texts, and shortened labels."""
    pairs = [(f"CLASSIFY THIS ITEM: {n}", f"ITEM NUMBER {7919 + n}") for n in range(30)]
    inspection, training = inspect_pairs(pairs, profile="completion")
    lossy = {fix.name for fix in inspection.fixes if fix.loses}
    assert {"prompt-prefix", "completion-prefix", "prompt-lower-case"} <= lossy
    kept = fixed(training, recommended(inspection), tmp_path)
    for row, (prompt, completion) in zip(kept, pairs, strict=True):
        assert isinstance(row, Row)
        assert row.prompt.startswith(prompt)
        assert completion in row.completion
    strip = [fix for fix in inspection.fixes if fix.name == "completion-prefix"]
    numbers = fixed(training, strip, tmp_path)
    assert next(row.completion for row in numbers if isinstance(row, Row)) == "7919"


def test_8_a_single_letter_is_no_prefix() -> None:
    """It reported "All prompts start with prefix `p`"."""
    inspection, _ = inspect_pairs([(f"p{n}xyz", f"c{n}") for n in range(30)], profile="completion")
    assert not any("prefix" in check for check in checks(inspection))
    words = [(f"Translate into French: {n}", f"c{n}") for n in range(30)]
    assert '"Translate into French: "' in remark(inspect_pairs(words)[0], "prompt-prefix").message


def test_9_every_class_is_on_both_sides_and_a_prompt_on_one() -> None:
    """It split at random by row: a rare class was missing, and near-duplicates leaked."""
    pairs = [(f"common {n % 300}", "a") for n in range(600)] + [
        (f"rare {n}", "b") for n in range(3)
    ]
    inspection, _ = inspect_pairs(pairs)
    import numpy as np

    split = plan_split(
        inspection.rows, np.ones(len(pairs), bool), share=0.2, seed=1, is_classification=True
    )
    sides = {
        side: {pairs[i][1] for i in np.flatnonzero(split.is_validation == side)} for side in (0, 1)
    }
    assert sides == {0: {"a", "b"}, 1: {"a", "b"}}
    prompts = [
        {pairs[i][0] for i in np.flatnonzero(split.is_validation == side)} for side in (0, 1)
    ]
    assert not prompts[0] & prompts[1]
    assert 80 <= split.is_validation.sum() <= 160


def test_10_other_columns_are_named_once_and_never_as_duplicates() -> None:
    """It reported each extra column as a duplicate of itself."""
    lines = "\n".join(json.dumps({"prompt": f"p{n}", "completion": "c", "id": n}) for n in range(5))
    inspection = inspect([reader(lines.encode())])
    found = remark(inspection, "other-columns")
    assert found.message == 'ignored columns: "id"'
    assert (found.level, found.fix) == ("info", None)


def test_11_conflicts_and_overlap_are_found() -> None:
    """It searched neither for prompts with two completions nor for rows in both files."""
    pairs = [("p1", "yes"), ("p2", "no"), ("p1", "no"), ("p3", "yes")]
    inspection, _ = inspect_pairs(pairs, validation=[("p2", "no"), ("p9", "yes"), ("p3", "no")])
    assert remark(inspection, "conflicts").message.startswith("1 prompt has more than one")
    overlap = remark(inspection, "overlap")
    assert (overlap.count, overlap.places) == (1, ("validation line 1",))
    assert remark(inspection, "overlap-prompts").count == 1


def test_12_chats_are_read_and_text_is_utf_8_without_an_empty_row() -> None:
    """It refused chats, decoded .txt by the locale, and read the last newline as a row."""
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert inspect([reader(json.dumps(chat).encode())]).kind == "chat"
    inspection = inspect([reader("eins\nzwei über\n".encode(), "a.txt")])
    assert (inspection.examples, inspection.kind) == (2, "open-ended generation")


@pytest.mark.slow
def test_13_memory_grows_by_at_most_32_bytes_a_row(tmp_path: Path) -> None:
    """It held the file several times: 1.5 GB for 214 MB."""
    assert ROW.itemsize <= 32
    path = tmp_path / "a.jsonl"
    peaks = []
    for count in (20_000, 60_000):
        path.write_bytes(
            jsonl([(f"prompt {n} " + "x" * 200, f"completion {n}") for n in range(count)])
        )
        from finetune_data.read.reader import Reader
        from finetune_data.read.sources import LocalSource

        made = Reader(LocalSource(path))
        tracemalloc.start()
        inspection = inspect([made])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert inspection.examples == count
    # an eighth more: what a growing array keeps in reserve, and a sorted copy of 8 bytes a row
    assert peaks[1] - peaks[0] < 40_000 * (ROW.itemsize * 1.125 + 8 + 4)
