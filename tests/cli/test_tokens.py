"""`finetune tokenize` with a real tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from finetune_data.tokenize.loading import load_tokenizer
from finetune_storage.s3 import Storage
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
    assert table.stdout.splitlines()[0].split() == ["ID", "ROLE", "TEXT"]


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


def test_a_text_never_controls_a_terminal(run: Run, model_folder: Path) -> None:
    ran = run("tokenize", "-m", str(model_folder), "a\x1b[31mb")
    assert "\x1b" not in ran.stdout
    both = run("tokenize", "-m", str(model_folder), "a", "--prompt", "b")
    assert (both.returncode, "TEXT cannot be combined with --prompt" in both.stderr) == (2, True)
