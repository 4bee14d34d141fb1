"""`finetune prepare-data -m BASE` and a run accept exactly the same data, line by line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from finetune_api.limits import DataLimits
from finetune_api.names import ENV_LOCAL_ROOT, EXIT_USER, LOCAL_BUCKET
from finetune_cli.main import finetune
from finetune_data.prepare.job import prepare
from finetune_storage.connect import open_storage
from tests.data.builders import base_model, prepare_task, write_json, write_tokenizer

CONTEXT = 40
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('one system') }}{% endif %}"
    "<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


class Verdict(NamedTuple):
    """Whether the data is accepted, and the refused lines of each file."""

    is_accepted: bool
    training: frozenset[int]
    validation: frozenset[int] = frozenset()


def chat(*texts: str, **last: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    made = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    made[-1] |= last
    return {"messages": made}


def row(prompt: str, completion: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


TALK = chat("one", "two")["messages"]
RULED = {"messages": [*TALK, {"role": "system", "content": "s"}, *TALK]}
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
LONG = "中文" * 40
ROWS = [row(f"question {n}", "yes no"[n % 2 :]) for n in range(4)]
CHATS = [chat(f"question {n}", "yes") for n in range(4)]
FILES: dict[str, tuple[list[Any], list[Any], Verdict]] = {
    "rows": (ROWS, [], Verdict(True, set())),
    "rows of both files": (ROWS, ROWS, Verdict(True, set())),
    "long rows": ([*ROWS, row(LONG, "a"), row("a", LONG)], [], Verdict(False, {5, 6})),
    "only a long row": ([row(LONG, "a")], [], Verdict(False, {1})),
    "a long row for validation": (ROWS, [row(LONG, "a"), *ROWS], Verdict(False, set(), {1})),
    "a wrong row": ([*ROWS, {"prompt": "a"}], [], Verdict(False, {5})),
    "labels": ([row("a", 1), row("b", True)], [], Verdict(True, set())),  # type: ignore[arg-type]
    "chats": (CHATS, CHATS, Verdict(True, set())),
    "a chat that the template refuses": ([*CHATS, RULED], [], Verdict(False, {5})),
    "only chats that the template refuses": ([RULED, RULED], [], Verdict(False, {1, 2})),
    "a refused chat for validation": (CHATS, [*CHATS, RULED], Verdict(False, set(), {5})),
    "a call that the template does not write": (
        [chat("one", "", tool_calls=[CALL]), *CHATS],
        [],
        Verdict(False, {1}),
    ),
    "reasoning that the template does not write": (
        [*CHATS, chat("one", "two", thinking="why")],
        [],
        Verdict(False, {5}),
    ),
    "all kinds at once": (
        [RULED, *CHATS, chat(LONG, "a"), {"messages": []}, chat("q", "a", weight=0)],
        [chat("q", LONG)],
        Verdict(False, {1, 6, 7, 8}, {1}),
    ),
    "nothing": ([], [], Verdict(False, set())),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tokenizer(tmp_path_factory.mktemp("model"), chat_template=TEMPLATE)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "max_position_embeddings": CONTEXT})
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENV_LOCAL_ROOT, str(tmp_path / "root"))
    return tmp_path


def write(path: Path, records: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def lines_of(findings: list[dict[str, Any]]) -> set[int]:
    return {finding["line"] for finding in findings if finding["line"] is not None}


def prepare_data(model: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        finetune, ["prepare-data", "train.jsonl", "-m", str(model), *arguments]
    )


def verdict_of_a_run(here: Path, model: Path, *, has_validation: bool) -> Verdict:
    bucket = here / "root"
    shutil.copytree(model, bucket / "model")
    changes: dict[str, Any] = {
        "base": base_model(f"s3://{LOCAL_BUCKET}/model", context_length=4096)
    }
    for name in ("train", "valid"):
        if (here / f"{name}.jsonl").exists():
            shutil.copy(here / f"{name}.jsonl", bucket)
    if has_validation:
        changes["validation_file"] = f"s3://{LOCAL_BUCKET}/valid.jsonl"
    task = prepare_task(LOCAL_BUCKET, **changes)
    folder = here / "work"
    folder.mkdir()
    outcome = prepare(task, open_storage(), folder)
    [*reports] = folder.rglob("data-report.jsonl")
    found = [json.loads(line) for report in reports for line in report.read_text().splitlines()]
    return Verdict(
        outcome.failure is None,
        lines_of([one for one in found if one["param"] == "trainingFile"]),
        lines_of([one for one in found if one["param"] == "validationFile"]),
    )


@pytest.mark.parametrize("name", FILES)
def test_the_command_and_a_run_refuse_the_same_lines(here: Path, model: Path, name: str) -> None:
    training, validation, expected = FILES[name]
    write(here / "train.jsonl", training)
    flags = ["--dry-run", "--report", "report.json"]
    if validation:
        write(here / "valid.jsonl", validation)
        flags += ["-v", "valid.jsonl"]
    result = prepare_data(model, *flags)
    assert result.exit_code == (0 if expected.is_accepted else EXIT_USER), result.output
    assert "Traceback" not in result.output
    found = json.loads((here / "report.json").read_text())["findings"]
    assert lines_of(found) == expected.training | expected.validation
    for file, lines in (("train.jsonl", expected.training), ("valid.jsonl", expected.validation)):
        for line in lines:
            assert (f"{file}, line {line}" if validation else f"line {line}") in result.output
    assert verdict_of_a_run(here, model, has_validation=bool(validation)) == expected


def test_the_fixes_make_data_that_a_run_accepts(here: Path, model: Path) -> None:
    training, validation, _ = FILES["all kinds at once"]
    write(here / "train.jsonl", training)
    write(here / "valid.jsonl", [*validation, *CHATS])
    fixes = ("wrong-lines", "chat-template", "too-long", "validation-too-long")
    flags = [flag for fix in fixes for flag in ("--fix", fix)]
    result = prepare_data(model, "-v", "valid.jsonl", "--show", "2", *flags)
    assert result.exit_code == 0, result.output
    for name in ("train", "valid"):
        prepared = here / f"train_prepared_{name}.jsonl"
        assert len(prepared.read_text().splitlines()) == len(CHATS)
        prepared.replace(here / f"{name}.jsonl")
    assert verdict_of_a_run(here, model, has_validation=True) == Verdict(True, set())


def test_fixes_that_leave_nothing_write_nothing(here: Path, model: Path) -> None:
    write(here / "train.jsonl", [RULED, RULED])
    result = prepare_data(model, "--fix", "chat-template")
    assert result.exit_code == EXIT_USER
    assert "Nothing was written. No training example is left." in result.output
    assert not list(here.glob("*prepared*"))


def test_a_base_model_that_does_not_fit_is_refused_by_both(here: Path, model: Path) -> None:
    plain = write_tokenizer(here / "plain")
    write(here / "train.jsonl", CHATS)
    result = prepare_data(plain, "--show", "2")
    assert result.exit_code == EXIT_USER
    assert "has no chat template" in result.output
    assert "Nothing was written" in result.output
    assert not verdict_of_a_run(here, plain, has_validation=False).is_accepted


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_by_both(here: Path) -> None:
    small = write_tokenizer(here / "small")
    config = json.loads((small / "config.json").read_text())
    write_json(small / "config.json", {**config, "vocab_size": 20})
    write(here / "train.jsonl", ROWS)
    result = prepare_data(small)
    assert result.exit_code == EXIT_USER
    assert "its config.json has a vocabulary of 20" in result.output
    assert not verdict_of_a_run(here, small, has_validation=False).is_accepted


def test_an_empty_validation_file_is_refused_by_both(here: Path, model: Path) -> None:
    write(here / "train.jsonl", ROWS)
    write(here / "valid.jsonl", [])
    result = prepare_data(model, "-v", "valid.jsonl")
    assert result.exit_code == EXIT_USER
    assert "there is no example in the validation data" in result.output
    assert not verdict_of_a_run(here, model, has_validation=True).is_accepted


def test_no_context_is_longer_than_the_positions_of_the_model(here: Path, model: Path) -> None:
    write(here / "train.jsonl", [row(LONG, "a"), *ROWS])
    result = prepare_data(model, "--context", "4096")
    assert result.exit_code == EXIT_USER
    assert f"more than {CONTEXT} tokens, the context length of the base model" in result.output


def test_the_default_limit_of_a_file_is_that_of_a_fine_tune(here: Path, model: Path) -> None:
    limit = DataLimits().max_file_bytes
    (here / "train.jsonl").touch()
    os.truncate(here / "train.jsonl", limit + 1)
    result = prepare_data(model)
    assert result.exit_code == EXIT_USER
    assert f"the file has {limit + 1:,} bytes, more than the {limit:,} allowed" in result.output


def test_changes_that_make_an_example_too_long_write_nothing(here: Path, model: Path) -> None:
    """The separator that `--profile completion` adds needs tokens, too."""
    words = "the quick brown fox jumps over the lazy dog"
    just_fits = row(" ".join([words] * 4), "yes")
    write(here / "train.jsonl", [*ROWS, just_fits])
    assert prepare_data(model, "--dry-run").exit_code == 0
    result = prepare_data(model, "--yes", "--profile", "completion")
    assert result.exit_code == EXIT_USER, result.output
    assert "train.jsonl, line 5: " in result.output
    assert "With the accepted changes, 1 example cannot be used" in result.output
    assert not list(here.glob("*prepared*"))
    assert prepare_data(model, "--yes").exit_code == 0
