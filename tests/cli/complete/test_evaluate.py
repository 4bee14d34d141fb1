"""`finetune evaluate` with a model of `finetune run`, and what it refuses before it loads one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.metrics import f1_score

from tests.cli.complete.conftest import CATS, FOXES
from tests.cli.conftest import Ran, Run
from tests.support.local_files import write_rows

EXACT, WEIGHTED = "exact match", "weighted F1"
TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]


def rows(count: int, wrong: int) -> list[dict[str, str]]:
    """Unseen numbers. wrong: how many foxes are no in the file."""
    made = []
    for number in range(64, 64 + count):
        prompt, answer = (FOXES, " yes") if number % 2 else (CATS, " no")
        if number % 2 and wrong:
            answer, wrong = " no", wrong - 1
        made.append({"prompt": prompt.format(number), "completion": answer})
    return made


@pytest.fixture
def valid(home: Path) -> Path:
    return write_rows(home / "valid.jsonl", rows(12, wrong=2))


@pytest.mark.slow
def test_a_model_is_graded_beside_its_base_model(
    trained: Path, base: Path, valid: Path, run: Run, home: Path
) -> None:
    arguments = ("evaluate", str(trained), "-f", str(valid), "--cpu", "--against", str(base))
    ran = run(*arguments, "-o", "json", "--answers", "answers.jsonl")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert (found["rows"], found["classes"], found["leftOut"]) == (12, ["no", "yes"], {})
    own, other = (model["metrics"] for model in found["models"])
    assert found["models"][0]["model"].startswith("tiny:ft-local")
    answers = [json.loads(line) for line in (home / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 24
    truth = [row["completion"].strip() for row in rows(12, wrong=2)]
    for metrics, given in ((own, answers[:12]), (other, answers[12:])):
        said = [row["answer"].strip() for row in given]
        right = [a == b for a, b in zip(truth, said, strict=True)]
        assert metrics[EXACT] == sum(right) / 12
        options = {"labels": ["no", "yes"], "average": "weighted", "zero_division": 0}
        assert metrics[WEIGHTED] == pytest.approx(f1_score(truth, said, **options))
    assert [row["line"] for row in answers] == [*range(1, 13)] * 2
    assert own[EXACT] == 10 / 12  # it says what it has learned, not what the file has
    assert found["difference"][EXACT]["value"] == own[EXACT] - other[EXACT]
    again = run("evaluate", str(trained), "-f", str(valid), "--cpu", "-o", "json")  # greedy
    assert json.loads(again.stdout)["models"] == found["models"][:1]


@pytest.mark.slow
def test_the_screen_shows_what_is_wrong(trained: Path, valid: Path, run: Run) -> None:
    ran = run("evaluate", str(trained), "-f", str(valid), "--cpu", "--show", "1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[0] == "valid.jsonl: 12 rows, 2 classes"
    lines = [line.rstrip() for line in ran.stdout.splitlines()]
    assert lines[0].split()[0] == "METRIC"
    assert lines[1].split() == ["exact", "match", "83.3", "%"]
    assert '"no"        "yes"    2' in lines
    start = lines.index("2 of 12 answers differ from the reference. The first 1:")
    assert lines[start + 1].split() == ["LINE", "REFERENCE", "ANSWER", "PROMPT"]
    assert lines[start + 2].split() == ["2", '"no"', '"yes"', '"fox', "65", '->"']
    assert len(lines) == start + 3


@pytest.mark.slow
def test_the_base_model_of_a_run_is_found(trained: Path, valid: Path, run: Run) -> None:
    arguments = ("-f", str(valid), "--cpu", "--limit", "2", "--against", "base", "-o", "json")
    for model in (trained, trained / "adapter"):
        base = () if model == trained else ("--base", str(trained))
        found = json.loads(run("evaluate", str(model), *base, *arguments).stdout)
        assert len(found["models"]) == 2
    assert found["models"][1]["model"].startswith("tiny:ft-local")  # of --base


@pytest.mark.parametrize("key", ["models/..", "models/../models", "../x", "models/", "models/a/b"])
def test_a_manifest_does_not_lead_to_other_folders(
    run: Run, home: Path, valid: Path, key: str
) -> None:
    model = home / "out" / "local" / "tone-1" / "model"
    for folder in (model, home / "out" / "models" / "a" / "b", home / "x", home / "out"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
    manifest = {"kind": "model", "baseUri": f"s3://finetune-local/{key}"}
    (model / "manifest.json").write_text(json.dumps(manifest))
    ran = run("evaluate", str(model), "-f", str(valid), "--against", "base")
    assert (ran.returncode, "in place of `base`" in ran.stderr) == (2, True), ran.stderr


@pytest.mark.slow
def test_a_gate(trained: Path, base: Path, valid: Path, run: Run) -> None:
    def gate(model: Path, other: Path) -> Ran:
        return run(
            *("evaluate", str(model), "-f", str(valid), "--against", str(other), "--cpu"),
            *("--must-beat", EXACT, "--limit", "4"),
        )

    assert gate(trained, base).returncode == 0
    ran = gate(base, trained)
    assert ran.returncode == 4
    assert f"error: {base.name} does not beat tiny:ft-local" in ran.stderr
    assert "METRIC" in ran.stdout
    assert gate(trained, trained).returncode == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("m",), 2, "Missing option '-f'"),
        (("m", "-f", "no.jsonl"), 1, "no.jsonl does not exist"),
        (("m", "-f", "valid.jsonl", "--must-beat", EXACT), 2, "--must-beat requires --against"),
        (
            ("m", "-f", "texts.jsonl", "--against", "n", "--must-beat", WEIGHTED),
            2,
            "weighted F1 is not measured: the references are no classes",
        ),
        (
            ("m", "-f", "valid.jsonl", "--against", "n", "--must-beat", "matches the pattern"),
            2,
            "matches the pattern is not measured: it needs --pattern or --schema",
        ),
        (("m", "-f", "valid.jsonl", "--pattern", "a("), 2, "the pattern is not a regular"),
        (("m", "-f", "valid.jsonl", "--schema", "valid.jsonl"), 2, "valid.jsonl is not JSON"),
        (("m", "-f", "valid.jsonl", "--schema", "list.json"), 2, "a JSON Schema is an object"),
        (("m", "-f", "valid.jsonl", "--answers", "no/a.jsonl"), 2, "there is no folder no"),
        (("m", "-f", "broken.jsonl"), 65, "broken.jsonl, line 2"),
        (("m", "-f", "calls.jsonl"), 65, "calls.jsonl has no row with an answer to compare"),
        (("no/folder", "-f", "valid.jsonl"), 2, "there is no folder no/folder"),
        (("plain", "-f", "valid.jsonl", "--against", "base"), 2, "in place of `base`"),
    ],
)
def test_every_error_is_a_sentence_before_a_model_is_loaded(
    run: Run, home: Path, valid: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    write_rows(
        home / "texts.jsonl", [{"prompt": f"a {n}", "completion": f" {n}"} for n in range(9)]
    )
    (home / "broken.jsonl").write_text('{"prompt": "a", "completion": " b"}\n{"prompt": \n')
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    write_rows(home / "calls.jsonl", [{"messages": [TALK[0], answer]}])
    (home / "list.json").write_text("[1]")
    (home / "plain").mkdir()
    (home / "plain" / "config.json").write_text("{}")
    ran = run("evaluate", *arguments)
    assert (ran.returncode, words in ran.stderr) == (code, True), ran.stderr
    assert ran.stdout == ""
