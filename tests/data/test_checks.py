"""What is said about whole files, and when a file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_data.checks import (
    CheckedFile,
    Fingerprints,
    overlap_advice,
    skipped_advice,
    verdict,
)
from finetune_data.findings import FileFindings, Finding, Report
from finetune_data.rows import Row

URI = "s3://acme/train.jsonl"


def fingerprints(*pairs: tuple[str, str], first_line: int = 1) -> Fingerprints:
    made = Fingerprints()
    for line, (prompt, completion) in enumerate(pairs, first_line):
        made.add(Row(line, prompt, completion))
    return made


def checked(folder: Path, rows: int, *findings: Finding) -> CheckedFile:
    with Report(folder / "report.jsonl") as report:
        found = FileFindings("trainingFile", URI, report)
        for finding in findings:
            found.add(finding)
    return CheckedFile(found, rows, "tiny", 64)


BROKEN = Finding("not-json", "not valid JSON", 17, 12)
LONG = Finding("too-long", "100 tokens", 18)


def test_copies_name_the_copy_and_the_original() -> None:
    pairs = [("a", "b"), ("c", "d"), ("ab", ""), ("c", "d"), ("a", "b")]
    assert fingerprints(*pairs, first_line=10).copies_advice("trainingFile") == [
        "Copies of earlier examples in trainingFile: 2 (line 13 repeats line 11)."
    ]
    assert fingerprints(("a", "b"), ("ab", ""), ("", "ab")).copies_advice("trainingFile") == []


def test_examples_of_both_files_are_counted() -> None:
    training = fingerprints(("a", "b"), ("c", "d"))
    validation = fingerprints(("e", "f"), ("c", "d"), ("c", "d"))
    [sentence] = overlap_advice(training, validation)
    assert "2 of 3 (line 2 is one)" in sentence
    assert overlap_advice(training, fingerprints(("a", "d"))) == []


def test_keys_that_nobody_reads_are_named_briefly() -> None:
    made = Fingerprints()
    for line in range(1, 200):
        made.add(Row(line, "a", "b", (f"key{line}", "id\x1b")))
    [sentence] = made.extra_keys_advice("trainingFile")
    assert sentence.startswith('Keys other than prompt and completion are ignored: "id\\x1b", ')
    assert sentence.endswith("…, on 199 lines of trainingFile.")
    assert len(sentence) < 200


def test_few_examples_are_advice_by_task() -> None:
    few = fingerprints(*((f"p{n}", f"c{n}") for n in range(30)))
    assert few.size_advice() == [
        "The training file has 30 examples; at least 500 are advised for generation."
    ]
    classes = fingerprints(*((f"p{n}", "yes" if n % 10 else "no") for n in range(2000)))
    assert classes.size_advice() == []
    rare = fingerprints(*((f"p{n}", "yes" if n % 40 else "no") for n in range(2000)))
    assert rare.size_advice() == [
        "The smallest of 2 classes has 50 examples (see line 1); at least 100 a class are advised."
    ]
    enough = fingerprints(*(("", f"c{n}") for n in range(500)))
    assert enough.size_advice() == []


def test_a_row_costs_few_bytes() -> None:
    made = fingerprints(("a" * 1000, "b" * 1000))
    arrays = [value for value in vars(made).values() if hasattr(value, "itemsize")]
    assert sum(array.itemsize for array in arrays) <= 32


def test_a_right_file_passes(tmp_path: Path) -> None:
    assert verdict(checked(tmp_path, 300), 0) is None


def test_the_first_finding_is_the_message(tmp_path: Path) -> None:
    failure = verdict(checked(tmp_path, 299, BROKEN), 0)
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
def test_a_tolerance_lets_a_share_pass(
    tmp_path: Path, rows: int, wrong: int, tolerance: float, passes: bool
) -> None:
    file = checked(tmp_path, rows, *[BROKEN] * wrong)
    failure = verdict(file, tolerance)
    assert (failure is None) == passes
    if failure is not None and tolerance:
        assert "dataTolerance allows" in failure.message
    [sentence] = skipped_advice(file, tolerance)
    assert f"{wrong} of {rows + wrong}" in sentence


def test_mostly_too_long_is_said_first(tmp_path: Path) -> None:
    failure = verdict(checked(tmp_path, 1, BROKEN, LONG, LONG, LONG), 0)
    assert failure is not None
    assert "the majority of its examples, 3 of 5, have more than the 64 tokens" in failure.message
    assert "line 18: 100 tokens" in failure.message
    half = verdict(checked(tmp_path, 1, LONG), 0)
    assert half is not None
    assert "majority" not in half.message


def test_an_empty_file_and_an_unreadable_one_have_no_tolerance(tmp_path: Path) -> None:
    empty = verdict(checked(tmp_path, 0), 1)
    assert empty is not None
    assert "the file is empty" in empty.message
    cut = verdict(checked(tmp_path, 10, Finding("gzip", "cut off", fatal=True)), 1)
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


def test_a_file_of_nothing_but_mistakes_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_data.findings.REPORTED", 10)
    file = checked(tmp_path, 0, *[BROKEN] * 1000)
    assert file.findings.count == 1000
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 10
