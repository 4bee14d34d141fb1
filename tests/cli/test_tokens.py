"""`finetune tokenize` with a real tokenizer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_data.tokenize.loading import load_tokenizer
from finetune_storage.s3 import Storage
from tests.cli.chat_model import (
    CHAT,
    MESSAGES,
    TALK,
    WITH_REASONING,
    WITHOUT_END,
    lines,
    write_chat_model,
)
from tests.cli.conftest import Run


def test_a_text_is_shown_token_by_token(run: Run, model_folder: Path) -> None:
    ran = run("tokenize", "-m", str(model_folder), "Hello wörld\n")
    assert ran.returncode == 0, ran.stderr
    assert "↵" in ran.stdout
    assert "\x1b" not in ran.stdout
    found = json.loads(run("tokenize", "-m", str(model_folder), "Hello", "-o", "json").stdout)
    assert found["count"] == len(found["tokens"])
    assert f"{found['count']:,} tokens" in run("tokenize", "-m", str(model_folder), "Hello").stderr
    assert found["tokens"][-1]["role"] == "completion"


def test_prompt_and_completion_are_encoded_as_they_are_trained_on(
    run: Run, model_folder: Path
) -> None:
    ran = run(
        "tokenize", "-m", str(model_folder), "--prompt", "2+2=", "--completion", " 4", "-o", "json"
    )
    found = json.loads(ran.stdout)["tokens"]
    tokenizer = load_tokenizer(model_folder, "m")
    roles = [item["role"] for item in found]
    assert roles == sorted(roles, key=["start", "prompt", "completion"].index)
    prompt = [item["id"] for item in found if item["role"] == "prompt"]
    assert "".join(tokenizer.texts(prompt)) == "2+2="
    table = run("tokenize", "-m", str(model_folder), "--prompt", "a", "--completion", "b", "--ids")
    assert table.stdout.splitlines()[0].split() == ["ID", "ROLE", "LEARNED", "END", "TEXT"]


def test_texts_of_stdin_and_of_s3_models(
    run: Run, model_folder: Path, aws: object, storage: Storage, bucket: str
) -> None:
    from finetune_api.uris import S3Uri

    prefix = S3Uri.parse(f"s3://{bucket}/base")
    for path in model_folder.iterdir():
        storage.upload_file(path, prefix.child(path.name))
    there = run("tokenize", "-m", str(prefix), "-o", "json", stdin="from stdin")
    assert there.returncode == 0, there.stderr
    here = run("tokenize", "-m", str(model_folder), "-o", "json", stdin="from stdin")
    assert there.stdout == here.stdout
    data = S3Uri.parse(f"s3://{bucket}/data/rows.jsonl")
    storage.write_bytes(data, lines({"prompt": "a", "completion": "b"}).encode())
    for address in (data, f"s3://{bucket}/data/*.jsonl"):
        row = json.loads(
            run("tokenize", "-m", str(prefix), "-f", str(address), "-o", "json").stdout
        )
        assert (row["file"], learned_text(row["examples"][0])) == ("rows.jsonl", "b</s>")


def test_a_text_never_controls_a_terminal(run: Run, model_folder: Path) -> None:
    ran = run("tokenize", "-m", str(model_folder), "a\x1b[31mb")
    assert "\x1b" not in ran.stdout
    both = run("tokenize", "-m", str(model_folder), "a", "--prompt", "b")
    assert (both.returncode, "TEXT cannot be combined with --prompt" in both.stderr) == (2, True)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("chat-model"))


def test_a_chat_is_shown_with_its_roles_and_what_ends_its_turns(
    run: Run, chat_model: Path, home: Path
) -> None:
    (home / "chats.jsonl").write_text(lines(CHAT))
    ran = run("tokenize", "-m", str(chat_model), "-f", "chats.jsonl")
    assert (ran.returncode, ran.stderr) == (0, "")
    legend, _, heading, _, *shown = ran.stdout.splitlines()
    assert legend == "context: read, learned: to write, end: to stop, ↵: new line, │: next token"
    assert heading == "chats.jsonl, line 1: a chat with 5 messages"
    assert shown[:3] == [
        "context │<|im_start|>│system│↵│",
        "context │You│ answer│ questions│ about│ parcels│.│<|im_end|>│↵│",
        "context │<|im_start|>│user│↵│",
    ]
    assert "learned │It│ left│ our│ warehouse│ this│ morning│.│↵│" in shown
    assert shown.count("end     │<|im_end|>│  written by the template") == 2
    assert '"<|im_end|>" ends 2 turns (written by the template)' in " ".join(shown)
    assert "\x1b" not in ran.stdout


def learned_text(example: dict[str, Any]) -> str:
    return "".join(token["text"] for token in example["tokens"] if token["learned"])


def write_data(path: Path, value: dict[str, Any]) -> None:
    """One example in the format of the name."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist([value]), path)
        return
    text = json.dumps([value]) if path.suffix == ".json" else lines(value)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_every_format_shows_the_same(run: Run, chat_model: Path, home: Path, suffix: str) -> None:
    path = home / f"chats.{suffix}"
    write_data(path, CHAT)
    ran = run("tokenize", "-m", str(chat_model), "-f", path.name, "-o", "json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert (found["file"], found["line"]) == (path.name, 1)
    [example] = found["examples"]
    assert learned_text(example) == f"{TALK[2][1]}<|im_end|>{TALK[4][1]}<|im_end|>"
    [end] = example["ends"]
    assert (end["text"], end["turns"], end["how"]) == ("<|im_end|>", 2, "template")
    assert example["context"] + example["learned"] == example["count"] == len(example["tokens"])
    assert [it["text"] for it in example["tokens"] if it["end"]] == ["<|im_end|>"] * 2


def test_a_chat_from_stdin_or_as_text(run: Run, chat_model: Path) -> None:
    model = ("tokenize", "-m", str(chat_model), "-o", "json")
    line = lines(CHAT)
    piped = run(*model, stdin=line)
    assert piped.returncode == 0, piped.stderr
    [example] = json.loads(piped.stdout)["examples"]
    for ran in (run(*model, line), run(*model, "-f", "-", stdin=line)):
        assert json.loads(ran.stdout)["examples"] == [example]
    second = json.loads(run(*model, "--line", "2", stdin=line + line).stdout)
    assert (second["line"], second["examples"]) == (2, [example])
    row = json.loads(run(*model, '{"prompt": "Where", "completion": " tomorrow"}').stdout)
    assert learned_text(row["examples"][0]) == " tomorrow</s>"
    plain = json.loads(run(*model, '{"prompt": "Where"}').stdout)
    assert learned_text(plain) == '{"prompt": "Where"}</s>'


def test_the_table_has_roles_and_ends(run: Run, chat_model: Path, home: Path) -> None:
    ran = run("tokenize", "-m", str(chat_model), "--ids", lines(CHAT))
    heading, *rows = ran.stdout.splitlines()
    assert heading.split() == ["ID", "ROLE", "LEARNED", "END", "TEXT"]
    assert rows[0].split() == ["3", "prompt", "no", "'<|im_start|>'"]
    assert rows[-1].split() == ["4", "completion", "yes", "template", "'<|im_end|>'"]


def test_a_conversation_that_becomes_several_examples_says_why(
    run: Run, home: Path, tmp_path: Path
) -> None:
    model = write_chat_model(tmp_path / "thinking", WITH_REASONING)
    messages = [
        it | ({"reasoning_content": "Yes"} if it["role"] == "assistant" else {}) for it in MESSAGES
    ]
    ran = run("tokenize", "-m", str(model), lines({"messages": messages}))
    words = " ".join(ran.stdout.split())
    assert "5 messages; 2 training examples, because the chat template writes earlier" in words
    assert ran.stdout.count("ends the turn (written by the") == 2
    added = write_chat_model(tmp_path / "added", WITHOUT_END)
    ran = run("tokenize", "-m", str(added), lines(CHAT))
    assert "because the chat template writes no token that ends a turn" in " ".join(
        ran.stdout.split()
    )
    assert "end     │</s>│  added, because the template writes none" in ran.stdout


@pytest.mark.parametrize(("no_color", "is_colored"), [("", True), ("1", False)])
def test_a_terminal_has_colors_unless_the_user_wants_none(
    run: Run,
    chat_model: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_color: str,
    is_colored: bool,
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm-256color"), ("COLORTERM", "")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_COLOR", no_color)
    shown = run("tokenize", "-m", str(chat_model), lines(CHAT)).stdout
    assert ("\x1b[" in shown, "│Yes│,│" in shown) == (is_colored, not is_colored)
    assert ("\x1b[1;37;48;5;22mYes\x1b[0m" in shown) == is_colored


def test_chats_without_a_chat_template_are_refused(run: Run, model_folder: Path) -> None:
    ran = run("tokenize", "-m", str(model_folder), lines(CHAT))
    assert (ran.returncode, "has no chat template" in ran.stderr) == (65, True)


def test_a_refused_line_is_an_error_with_its_place_and_a_remedy(
    run: Run, chat_model: Path, home: Path
) -> None:
    call = {"type": "function", "function": {"name": "track", "arguments": "{}"}}
    calling = [MESSAGES[1], {"role": "assistant", "content": None, "tool_calls": [call]}]
    (home / "chats.jsonl").write_text(
        lines(CHAT, {"messages": calling}, {"messages": []}) + "{broken\n"
    )
    model = ("tokenize", "-m", str(chat_model), "-f", "chats.jsonl")
    lost = run(*model, "--line", "2")
    assert (lost.returncode, lost.stdout) == (65, "")
    assert "chats.jsonl, line 2: messages[1].tool_calls[0].function.name: the tool call" in (
        lost.stderr
    )
    assert "use a base model whose template supports tool calls" in lost.stderr
    empty = run(*model, "--line", "3")
    assert empty.returncode == 65
    assert 'chats.jsonl, line 3, column 14: "messages" is empty' in empty.stderr
    broken = run(*model, "--line", "4")
    assert (broken.returncode, "chats.jsonl, line 4, column" in broken.stderr) == (65, True)
    beyond = run(*model, "--line", "9")
    assert (beyond.returncode, "no example in line 9" in beyond.stderr) == (2, True)


def test_lines_of_tables_count_from_the_header(run: Run, chat_model: Path, home: Path) -> None:
    (home / "rows.csv").write_text("question,answer\nWhere,tomorrow\nCan I,Yes\n")
    model = ("tokenize", "-m", str(chat_model), "-f", "rows.csv", "-o", "json")
    columns = ("--prompt-column", "question", "--completion-column", "answer")
    first = json.loads(run(*model, *columns).stdout)
    assert (first["line"], learned_text(first["examples"][0])) == (2, "tomorrow</s>")
    third = json.loads(run(*model, *columns, "--line", "3").stdout)
    assert learned_text(third["examples"][0]) == "Yes</s>"
    header = run(*model, *columns, "--line", "1")
    assert (header.returncode, "its first one is after it" in header.stderr) == (2, True)


def test_an_example_longer_than_the_context_is_shown_and_refused(
    run: Run, chat_model: Path, home: Path
) -> None:
    config = json.loads((chat_model / "config.json").read_text())
    small = home / "small"
    small.mkdir()
    for path in chat_model.iterdir():
        (small / path.name).write_bytes(path.read_bytes())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))
    ran = run("tokenize", "-m", "small", lines(CHAT))
    assert "learned │Yes│" in ran.stdout
    assert ran.returncode == 65
    assert "61 tokens (prompt 39, completion 22) are more than 16, the context" in ran.stderr


def test_several_sources_of_a_text_are_an_error(run: Run, chat_model: Path, home: Path) -> None:
    model = ("tokenize", "-m", str(chat_model))
    (home / "a.jsonl").write_text(lines(CHAT))
    (home / "b.jsonl").write_text(lines(CHAT))
    for words, message in (
        (("-f", "a.jsonl", "text"), "TEXT cannot be combined with --file"),
        (("-f", "a.jsonl", "--prompt", "p"), "--file cannot be combined with --prompt"),
        (("--line", "2", "text"), "--line requires a data file"),
        (("-f", "*.jsonl"), "*.jsonl is 2 files, expected one"),
    ):
        ran = run(*model, *words)
        assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    missing = run(*model, "-f", "none.jsonl")
    assert (missing.returncode, "none.jsonl does not exist" in missing.stderr) == (1, True)
    (home / "empty.jsonl").write_text("")
    empty = run(*model, "-f", "empty.jsonl")
    assert (empty.returncode, "empty.jsonl has no example" in empty.stderr) == (65, True)
