"""`finetune prepare-data` in a pipe and in a terminal, with valid and invalid files."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from finetune_api.names import EXIT_USER
from finetune_cli.commands.prepare_data.fix_selection import choose_fixes
from finetune_cli.commands.prepare_data.screen import FindingsScreen
from finetune_cli.main import finetune
from finetune_data.read.examples import Row
from tests.cli.chat_model import CHAT, lines, write_chat_model
from tests.data.builders import read, write_tokenizer
from tests.data.lint.support import inspect_pairs

CSV = "prompt,completion,id\n" + "".join(
    f"text {n},{'positive' if n % 3 else 'negative'},{n}\n" for n in range(30)
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(finetune, ["prepare-data", *arguments])


def rows(path: Path) -> list[Row]:
    return [one for one in read(path.read_bytes()) if isinstance(one, Row)]


def test_a_table_becomes_jsonl_and_a_manifest_to_copy(here: Path) -> None:
    (here / "labels.csv").write_text(CSV + "text 1,positive,99\n")
    result = run("labels.csv", "--yes", "--split")
    assert result.exit_code == 0, result.output
    assert "classification: 31 examples" in result.output
    assert "1 row is a copy of an earlier row (line 32 repeats line 3)" in result.output
    assert 'ignored columns: "id"' in result.output
    assert "\x1b" not in result.output
    train, valid = (
        rows(here / "labels_prepared_train.jsonl"),
        rows(here / "labels_prepared_valid.jsonl"),
    )
    assert len(train) + len(valid) == 30
    assert {row.completion for row in valid} == {"positive", "negative"}
    assert "validationFile: s3://BUCKET/labels_prepared_valid.jsonl" in result.output
    assert 'classificationPositiveClass: "positive"' in result.output
    assert run("labels.csv", "--yes", "--split").exit_code == 0
    assert (here / "labels_prepared_train-1.jsonl").exists()


def test_the_manifest_counts_the_classes_as_they_were_written(here: Path) -> None:
    lines = [
        f"text {n},{('red', 'green', 'blue', 'Red')[n % 3 if n < 44 else 3]}" for n in range(45)
    ]
    (here / "a.csv").write_text("\n".join(["prompt,completion", *lines]))
    result = run("a.csv", "--yes", "--split", "--fix", "same-spelling")
    assert result.exit_code == 0, result.output
    assert "classificationNClasses: 3" in result.output
    assert "classificationNClasses: 4" in run("a.csv", "--yes", "--split").output


def test_the_split_sees_the_classes_as_they_are_written(here: Path) -> None:
    lines = [f"text {n},{('high', 'mid', 'low')[n % 3]}" for n in range(90)]
    right = "\n".join(["prompt,completion", *lines])
    (here / "right.csv").write_text(right)
    (here / "wrong.csv").write_text(right.replace("text 42,high", "text 42,High"))
    how = ("--yes", "--split", "--profile", "completion")
    assert run("right.csv", *how).exit_code == 0
    result = run("wrong.csv", *how, "--fix", "same-spelling")
    assert result.exit_code == 0, result.output
    assert "one prompt only" not in result.output
    for side in ("train", "valid"):
        written = [
            (here / f"{name}_prepared_{side}.jsonl").read_bytes() for name in ("right", "wrong")
        ]
        assert written[0] == written[1]
    assert "Classes with only one prompt" in run("wrong.csv", *how).output


def test_the_split_sees_prompts_that_a_change_makes_equal(here: Path) -> None:
    lines = [f"{'TEXT' if n % 2 else 'text'} NUMBER {n // 2},answer {n}" for n in range(60)]
    (here / "a.csv").write_text("\n".join(["prompt,completion", *lines]))
    result = run("a.csv", "--yes", "--split", "--fix", "prompt-lower-case")
    assert result.exit_code == 0, result.output
    train, valid = (
        {row.prompt for row in rows(here / f"a_prepared_{side}.jsonl")}
        for side in ("train", "valid")
    )
    assert valid
    assert not train & valid


class Answering(FindingsScreen):
    """Somebody who presses Enter at every question."""

    def __init__(self) -> None:
        self.defaults: dict[str, bool] = {}

    @property
    def can_ask(self) -> bool:
        return True

    def ask(self, question: str, default: bool) -> bool:
        self.defaults[question] = default
        return default


def test_enter_does_not_accept_a_change_that_loses_data() -> None:
    pairs = [(f"text {n}", "ab"[n % 2]) for n in range(20)]
    inspection, _ = inspect_pairs([*pairs, ("text 20", "A"), pairs[0]])
    screen = Answering()
    accepted = choose_fixes(screen, inspection, yes=False, wanted=(), unwanted=())
    assert screen.defaults == {
        "Remove the copy?": True,
        'Write "A" as "a"? (loses data)': False,
    }
    assert [fix.name for fix in accepted] == ["duplicates"]


def test_yes_loses_no_data_and_lists_skipped_changes(here: Path) -> None:
    lines = [
        json.dumps({"prompt": f"SAY THIS LOUD: {n}", "completion": f" c{n}"}) for n in range(9)
    ]
    (here / "a.jsonl").write_text("\n".join(lines))
    result = run("a.jsonl", "-y")
    assert "skipped: Convert every prompt to lower case (loses data)" in result.output
    assert "--fix prompt-lower-case accepts it" in result.output
    assert rows(here / "a_prepared.jsonl")[0].prompt == "SAY THIS LOUD: 0"
    run("a.jsonl", "-y", "--fix", "prompt-prefix", "--fix", "prompt-lower-case")
    assert rows(here / "a_prepared-1.jsonl")[0].prompt == "0"
    wrong = run("a.jsonl", "--fix", "nonsense")
    assert wrong.exit_code == 2
    assert "nonsense is not a proposed change; proposed:" in wrong.output


def test_invalid_lines_prevent_writing_until_their_removal_is_accepted(here: Path) -> None:
    (here / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n')
    result = run("a.jsonl", "-y")
    assert result.exit_code == EXIT_USER
    assert 'line 2, column 1: missing key "completion"' in result.output
    assert "Nothing was written" in result.output
    assert [path.name for path in here.iterdir()] == ["a.jsonl"]
    assert run("a.jsonl", "-y", "--fix", "wrong-lines").exit_code == 0
    assert len(rows(here / "a_prepared.jsonl")) == 1


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.csv", b"", "there is no example to train on"),
        ("photo.jsonl", b"\xff\xd8\xff\xe0\x00\x10JFIF", "this is a JPEG picture"),
        ("qa.csv", b"question,answer\na,b\n", "--prompt-column question"),
        ("a.csv.gz", b"\x1f\x8b\x08\x00broken", "the gzip data is broken or cut off"),
    ],
)
def test_what_is_no_data_is_a_sentence(here: Path, name: str, data: bytes, words: str) -> None:
    (here / name).write_bytes(data)
    result = run(name, "--yes")
    assert result.exit_code == EXIT_USER
    assert words in result.output
    assert "Traceback" not in result.output
    assert [path.name for path in here.iterdir()] == [name]


def test_the_hint_about_an_encoding_converts_the_file(here: Path) -> None:
    (here / "a.csv").write_bytes("prompt,completion\nwo?,Köln\n".encode("cp1252"))
    result = run("a.csv", "--yes")
    assert result.exit_code == EXIT_USER
    assert "`finetune prepare-data FILE --encoding cp1252`" in result.output
    assert run("a.csv", "--yes", "--encoding", "cp1252").exit_code == 0
    assert [row.completion for row in rows(here / "a_prepared.jsonl")] == ["Köln"]
    for wrong in ("nonsense", "base64", "\0"):
        assert run("a.csv", "--encoding", wrong).exit_code == 2


def test_a_table_with_other_columns_says_what_to_type(here: Path) -> None:
    (here / "reviews.csv").write_text("id,review text,stars\n1,fine,5\n")
    result = run("reviews.csv", "--yes")
    assert result.exit_code == EXIT_USER
    assert (
        'error: no columns are named "prompt" and "completion", there are only "id", '
        '"review text", "stars". To convert the file, run `finetune prepare-data FILE '
        "--prompt-column NAME "
        "--completion-column NAME`\n"
    ) in result.output
    assert "can't be read" not in result.output
    assert "Nothing was written" in result.output


def test_a_dry_run_with_errors_reports_only_the_errors(here: Path) -> None:
    (here / "a.csv").write_text("prompt,completion\na,\nb,c\n")
    result = run("a.csv", "--dry-run")
    assert result.exit_code == EXIT_USER
    assert "Nothing was written" not in result.output
    assert "The data is not ready. Fix all errors first." in result.output


def test_a_class_that_is_only_in_the_validation_file_is_reported(here: Path) -> None:
    (here / "t.csv").write_text(CSV)
    (here / "v.csv").write_text("prompt,completion\nx,positive\ny,terrible\nz,terrible\n")
    result = run("t.csv", "-v", "v.csv", "--yes")
    assert result.exit_code == 0, result.output
    assert (
        "warning: 1 class is only in the validation data, and the model never learns it: "
        '"terrible"; add training examples of it, or remove its rows from the validation data '
        "(validation line 3, …)\n"
    ) in result.output


def test_a_file_that_is_not_there_is_an_error_of_one_line(here: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "finetune_cli", "prepare-data", "nothing.csv"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "error: nothing.csv does not exist\n"


def test_a_dry_run_writes_only_the_report(here: Path) -> None:
    (here / "labels.csv").write_text(CSV)
    for name in ("report.json", "report.html"):
        assert run("labels.csv", "--dry-run", "--report", name).exit_code == 0
    assert sorted(path.name for path in here.iterdir()) == [
        "labels.csv",
        "report.html",
        "report.json",
    ]
    value = json.loads((here / "report.json").read_text())
    assert (value["kind"], value["examples"]) == ("classification", 30)
    assert value["classes"] == [
        {"label": "positive", "examples": 20},
        {"label": "negative", "examples": 10},
    ]
    assert run("labels.csv", "--report", "report.pdf").exit_code == 2
    assert "report-1.json" in run("labels.csv", "--dry-run", "--report", "report.json").output


def test_the_page_escapes_untrusted_text(here: Path) -> None:
    evil = "<script>alert(1)</script>"
    (here / "a.csv").write_text(f"prompt,completion\n{evil},{evil}\n" + "x,y\n" * 9)
    assert run("a.csv", "--dry-run", "--report", "r.html").exit_code == 0
    page = (here / "r.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_lengths_are_tokens_when_the_model_is_known(here: Path) -> None:
    write_tokenizer(here / "model")
    (here / "labels.csv").write_text(CSV + f"{'long ' * 50},positive,1\n")
    result = run("labels.csv", "--model", "model", "--context", "64", "--yes")
    assert result.exit_code == EXIT_USER
    assert "1 example has more than 64 tokens" in result.output
    assert "lengths in tokens" in result.output
    assert (
        run("labels.csv", "-m", "model", "--context", "64", "-y", "--fix", "too-long").exit_code
        == 0
    )
    assert len(rows(here / "labels_prepared.jsonl")) == 30


def test_the_first_examples_are_shown_as_they_will_be_trained(here: Path) -> None:
    write_chat_model(here / "model")
    (here / "chats.jsonl").write_text(lines(CHAT, CHAT, CHAT))
    shown = run("chats.jsonl", "--model", "model", "--show", "2", "--dry-run").output
    assert "chats.jsonl, line 1: a chat with 5 messages" in shown
    assert "chats.jsonl, line 2: a chat with 5 messages" in shown
    assert "line 3: a chat" not in shown
    assert shown.count("end     │<|im_end|>│  written by the template") == 4
    (here / "labels.csv").write_text(CSV)
    completion = ("--profile", "completion", "--yes", "--no-split")
    shown = run("labels.csv", "--model", "model", "--show", "1", *completion).output
    assert "#│#│#│" in shown  # of the separator, which the accepted change adds
    without = run("chats.jsonl", "--show", "2")
    assert (without.exit_code, "--show requires --model" in without.output) == (2, True)


def test_validation_files_get_the_same_style_and_keep_their_rows(here: Path) -> None:
    (here / "t.jsonl").write_text(
        "".join(json.dumps({"prompt": f"p{n}", "completion": f"c{n}"}) + "\n" for n in range(9))
    )
    (here / "v.jsonl").write_text(json.dumps({"prompt": "p1", "completion": "c1"}) + "\n")
    result = run("t.jsonl", "-v", "v.jsonl", "--profile", "completion", "-y")
    assert result.exit_code == 0, result.output
    assert "also in the training data" in result.output
    command = "finetune create -t t_prepared_train.jsonl -v t_prepared_valid.jsonl"
    assert f"  {command} --upload-to s3://BUCKET/PREFIX\n" in result.output
    assert result.output.index(command) < result.output.index("kubectl apply -f -")
    [held_out] = rows(here / "t_prepared_valid.jsonl")
    assert (held_out.prompt, held_out.completion) == ("p1\n\n###\n\n", " c1\n")


@pytest.mark.slow
def test_a_terminal_is_asked_and_colored(here: Path) -> None:
    (here / "labels.csv").write_text(CSV + "text 1,positive,99\n")
    main, other = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "finetune_cli", "prepare-data", "labels.csv"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm-256color"},
        stdin=other,
        stdout=other,
        stderr=other,
        close_fds=True,
    )
    os.close(other)
    seen, answers = b"", [b"\n", b"n\n"]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([main], [], [], 1)[0]:
            continue
        try:
            block = os.read(main, 4096)
        except OSError:
            break
        if not block:
            break
        seen += block
        if answers and seen.rstrip().endswith((b"[Y/n]:", b"[y/N]:")):
            os.write(main, answers.pop(0))
            seen += b" "
    assert child.wait(timeout=30) == 0, seen.decode()
    os.close(main)
    text = seen.decode()
    assert "\x1b[" in text
    assert "Remove the copy?" in text
    assert "Split off a validation file?" in text
    assert len(rows(here / "labels_prepared.jsonl")) == 30


def test_help_appears_at_once_and_describes_the_command() -> None:
    program = (
        "import sys\n"
        "from finetune_cli.main import finetune\n"
        "try:\n    finetune(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'boto3', 'transformers', 'numpy', 'rich', 'pyarrow'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "prepare-data" in ran.stdout
    assert "heavy: []" in ran.stdout
    text = " ".join(run("--help").output.split())
    assert "never changes or overwrites existing files" in text
    assert "Examples:" in text
