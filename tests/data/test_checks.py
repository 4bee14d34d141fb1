"""Advice about whole files, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import DataSummary
from finetune_data.prepare.checks import (
    CheckedFile,
    data_advice,
    find_refusal,
    mixed_kinds_advice,
    skipped_lines_advice,
)
from finetune_data.read.examples import Row
from finetune_data.read.findings import FileFindings, Finding, FindingsFile

URI = "s3://acme/train.jsonl"


def checked(folder: Path, rows: int, *findings: Finding, limit: int = 100_000) -> CheckedFile:
    with FindingsFile(folder / "report.jsonl", limit=limit) as report:
        found = FileFindings("trainingFile", URI, report)
        for finding in findings:
            found.add(finding)
    return CheckedFile(found, rows, "tiny", 64)


BROKEN = Finding("not-json", "not valid JSON", 17, 12)
LONG = Finding("too-long", "100 tokens", 18)


def summary(*pairs: tuple[str, str]) -> DataSummary:
    found = DataSummary()
    found.rows.begin("trainingFile")
    found.observe(Columns([Row(line, *pair) for line, pair in enumerate(pairs, 1)], 0, 0))
    return found


def test_advice_is_sentences_with_their_places() -> None:
    training = summary(("a", "b"), ("c", "d"), ("c", "d"), ("a", "e"))
    validation = summary(("e", "f"), ("c", "d"), ("c", "d"))
    advice = data_advice(training, validation)
    assert advice[0].startswith("2 rows of the validation data are also in the training data")
    assert "1 row is a copy of an earlier row (line 3 repeats line 2)." in advice
    assert any("1 prompt has more than one completion" in text for text in advice)
    assert any(text.startswith("4 examples: use at least 500") for text in advice)


def test_files_of_both_kinds_get_advice_that_names_one_of_each() -> None:
    assert mixed_kinds_advice({"trainingFiles[0]": True, "trainingFiles[1]": True}) == []
    [advice] = mixed_kinds_advice({"trainingFiles[0]": False, "trainingFiles[1]": True})
    assert advice.startswith("trainingFiles[1] has chats, and trainingFiles[0] has prompts")


def test_a_valid_file_is_accepted(tmp_path: Path) -> None:
    assert find_refusal(checked(tmp_path, 300), 0) is None


def test_the_first_finding_is_the_message(tmp_path: Path) -> None:
    failure = find_refusal(checked(tmp_path, 299, BROKEN), 0)
    assert failure is not None
    assert failure.message == (
        "trainingFile s3://acme/train.jsonl, line 17, column 12: not valid JSON "
        "(1 wrong line of 300; see data-report.jsonl)"
    )
    assert (failure.code, failure.param) == ("InvalidData", "trainingFile")
    assert failure.lines == ["line 17, column 12: not valid JSON"]


@pytest.mark.parametrize(
    ("rows", "wrong", "tolerance", "passes"),
    [
        (99, 1, 0, False),
        (99, 1, 0.01, True),
        (98, 2, 0.01, False),
        (71, 29, 0.29, True),
        (1, 99, 1, True),
        (0, 100, 1, False),
    ],
)
def test_a_tolerance_accepts_a_share_of_wrong_lines(
    tmp_path: Path, rows: int, wrong: int, tolerance: float, passes: bool
) -> None:
    file = checked(tmp_path, rows, *[BROKEN] * wrong)
    failure = find_refusal(file, tolerance)
    assert (failure is None) == passes
    if failure is not None and tolerance:
        assert "dataTolerance allows" in failure.message
    [sentence] = skipped_lines_advice(file, tolerance)
    assert f"{wrong} of {rows + wrong}" in sentence


def test_a_file_of_mostly_long_examples_reports_that_first(tmp_path: Path) -> None:
    failure = find_refusal(checked(tmp_path, 1, BROKEN, LONG, LONG, LONG), 0)
    assert failure is not None
    assert "most of its examples (3 of 5) have more than 64 tokens" in failure.message
    assert "line 18: 100 tokens" in failure.message
    half = find_refusal(checked(tmp_path, 1, LONG), 0)
    assert half is not None
    assert "majority" not in half.message


def test_no_tolerance_accepts_an_empty_or_unreadable_file(tmp_path: Path) -> None:
    empty = find_refusal(checked(tmp_path, 0), 1)
    assert empty is not None
    assert "the file is empty" in empty.message
    cut = find_refusal(checked(tmp_path, 10, Finding("gzip", "cut off", fatal=True)), 1)
    assert cut is not None
    assert cut.message == "trainingFile s3://acme/train.jsonl: cut off"


def test_status_gets_the_first_and_the_report_gets_all(tmp_path: Path) -> None:
    findings = [Finding("not-json", "é", line, 1) for line in range(1, 101)]
    file = checked(tmp_path, 0, *findings)
    assert len(file.findings.first) == 20
    report = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in report] == list(range(1, 101))
    assert report[0] == {
        "param": "trainingFile",
        "uri": URI,
        "line": 1,
        "column": 1,
        "code": "not-json",
        "message": "é",
    }


def test_a_file_full_of_mistakes_does_not_fill_the_disk(tmp_path: Path) -> None:
    file = checked(tmp_path, 0, *[BROKEN] * 1000, limit=10)
    assert file.findings.count == 1000
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 10
