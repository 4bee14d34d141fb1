"""`finetune complete` with a real model: of `finetune run`, and from a real S3 server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_storage.s3 import Storage
from tests.cli.complete.conftest import CATS, FOXES, execute
from tests.cli.conftest import Run
from tests.cli.statuses import status
from tests.data.builders import put_folder
from tests.support.kubectl import Kubectl, finetune

pytestmark = pytest.mark.slow


@pytest.fixture
def complete(run: Run) -> Iterator[Any]:
    """The JSON answer, greedy, of arguments."""

    def call(*arguments: str, stdin: str = "") -> dict[str, Any]:
        ran = run("complete", *arguments, "--cpu", "-t", "0", "-o", "json", stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer

    return call


def test_a_model_of_a_run_says_what_it_has_learned(trained: Path, complete: Any, run: Run) -> None:
    for number in (3, 20, 41):
        for prompt, text in ((FOXES, " yes"), (CATS, " no")):
            answer = complete(str(trained), "-p", prompt.format(number))
            (choice,) = answer["choices"]
            assert (choice["text"], choice["finish_reason"]) == (text, "stop")
    assert answer["usage"] == {
        "prompt_tokens": len("cat 41 ->"),
        "completion_tokens": len(" no") + 1,
        "total_tokens": len("cat 41 -> no") + 1,
    }
    shown = run("complete", str(trained), "-t", "0", "--logprobs", "2", "--cpu", stdin="fox 9 ->\n")
    assert shown.stdout.splitlines()[0] == " yes"
    heading, first, second, *_ = shown.stdout.splitlines()[1:]
    assert heading.split() == ["TOKEN", "LOGPROB", "PROBABILITY"]
    assert first.startswith("' '") and second.startswith("  not ")
    cut = run("complete", str(trained), "-t", "0", "-M", "2", "--cpu", "-p", "fox 9 ->")
    assert (cut.stdout, "(stopped after 2 tokens; --max-tokens sets the limit)" in cut.stderr) == (
        " y\n",
        True,
    )


def test_stdout_has_the_answer_and_nothing_else(trained: Path, base: Path, home: Path) -> None:
    """As its own process: torch, transformers, peft and DeepSpeed like to talk."""
    asked = ("complete", str(trained / "adapter"), "--base", str(base), "-p", "fox 1 ->", "--cpu")
    ran = execute(home, *asked, "-t", "0")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, " yes\n", "")


def test_log_probabilities_are_those_of_one_whole_forward_pass(
    trained: Path, complete: Any
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logs = complete(str(trained), "-p", "fox 5 ->", "--logprobs", "3")["choices"][0]["logprobs"]
    assert logs["tokens"] == list(" yes")
    assert logs["text_offset"] == [0, 1, 2, 3]
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForCausalLM.from_pretrained(trained).eval()
    ids = tokenizer("fox 5 -> yes", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits[0].double().log_softmax(-1)
    start = len("fox 5 ->")
    for place, (logprob, tops) in enumerate(
        zip(logs["token_logprobs"], logs["top_logprobs"], strict=True)
    ):
        row = expected[start + place - 1]
        assert logprob == pytest.approx(float(row[ids[0, start + place]]), abs=1e-4)
        assert [*tops.values()] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)


def test_greedy_is_what_transformers_generates_and_seeds_repeat(base: Path, complete: Any) -> None:
    """Of a model that knows nothing: its words hang on every digit."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    for prompt in ("abc", "0123456789", "z"):
        inputs = tokenizer(prompt, return_tensors="pt")
        made = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=20,
            do_sample=False,
        )
        expected = tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True)
        answer = complete(str(base), "-p", prompt, "-M", "20")
        assert answer["choices"][0]["text"] == expected


def test_draws_follow_seed_number_and_best_of(base: Path, run: Run) -> None:
    def draw(*arguments: str) -> list[str]:
        asked = ("complete", str(base), "-p", "abc", "--cpu", "-M", "12", "-o", "json", "--seed")
        ran = run(*asked, *arguments)
        assert ran.returncode == 0, ran.stderr
        return [choice["text"] for choice in json.loads(ran.stdout)["choices"]]

    four = draw("7", "--n", "4")
    assert draw("7") == four[:1]
    assert len(set(four)) == 4
    assert draw("8") != four[:1]
    (best,) = draw("7", "--best-of", "4")
    assert best in four


def test_an_adapter_alone_is_added_to_its_base(
    trained: Path, base: Path, complete: Any, home: Path, run: Run
) -> None:
    question = ("-p", "cat 5 ->", "--logprobs", "1")
    whole = complete(str(trained), *question)["choices"][0]
    added = complete(str(trained / "adapter"), "--base", str(base), *question)["choices"][0]
    assert added["text"] == whole["text"] == " no"
    assert added["logprobs"]["token_logprobs"] == pytest.approx(
        whole["logprobs"]["token_logprobs"], abs=1e-4
    )
    lost = run("complete", str(trained / "adapter"), "-p", "a")
    assert (lost.returncode, "add --base" in lost.stderr) == (2, True)


def test_a_chat_is_answered_by_the_models_template(trained: Path, complete: Any) -> None:
    answer = complete(
        str(trained), "-g", "user", "fox", "-g", "assistant", "yes", "-g", "user", "a"
    )
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    # u:fox</s>a:yes</s>u:a</s>a:
    assert answer["usage"]["prompt_tokens"] == len("u:fox.a:yes.u:a.a:")


def test_a_published_model_is_fetched_once(
    trained: Path, complete: Any, run: Run, home: Path, aws: object, storage: Storage, bucket: str
) -> None:
    from finetune_api.uris import S3Uri

    prefix = S3Uri.parse(f"s3://{bucket}/team/tone/model")
    put_folder(storage, trained, prefix)
    assert complete(str(prefix), "-p", "fox 1 ->")["choices"][0]["text"] == " yes"
    (kept,) = (home / ".cache" / "finetune" / "models").iterdir()
    assert not (kept / "adapter").exists()
    storage.write_bytes(prefix.child("model.safetensors"), b"somebody else's")
    assert complete(str(prefix), "-p", "fox 1 ->")["choices"][0]["text"] == " yes"
    (home / ".cache").rename(home / "elsewhere")
    damaged = run("complete", str(prefix), "-p", "a")
    assert (damaged.returncode, "is damaged" in damaged.stderr) == (1, True)
    assert [*(home / ".cache" / "finetune" / "models").iterdir()] == []


@pytest.mark.integration
def test_a_model_is_found_by_its_name_and_by_its_fine_tunes(
    trained: Path, at_team: Run, team: Kubectl, home: Path, storage: Storage, bucket: str
) -> None:
    from finetune_api.uris import S3Uri
    from finetune_storage.manifests import sha256

    prefix = S3Uri.parse(f"s3://{bucket}/team/tone/model")
    put_folder(storage, trained, prefix)
    name = "tiny:ft-team:tone-2026-11-21-12-00-00"
    model = {
        "id": name,
        "uri": str(prefix),
        "base": "tiny",
        "manifestSha256": sha256(trained / "manifest.json"),
        "pretrainingLearningRate": 0.01,
        "contextLength": 64,
    }
    team.apply(
        {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": name.replace(":", "-")},
            "spec": model,
        },
        finetune("tone"),
    )
    asked = ("-p", "fox 1 ->", "-t", "0", "--cpu")
    early = at_team("complete", "tone", *asked)
    assert (early.returncode, "there is no model 'tone'" in early.stderr) == (1, True)
    team.patch_status("finetune", "tone", status("succeeded", fineTunedModel=name))
    for known in (name, name.replace(":", "-"), "tone"):
        ran = at_team("complete", known, *asked)
        assert (ran.returncode, ran.stdout) == (0, " yes\n"), ran.stderr
    storage.write_bytes(prefix.child("manifest.json"), b"{}")
    changed = at_team("complete", name, *asked)
    assert "differs from the published one" in changed.stderr


def test_a_pulled_adapter_finds_its_base_by_its_manifest(
    trained: Path, base: Path, complete: Any, home: Path, aws: object, storage: Storage, bucket: str
) -> None:
    from shutil import copytree

    from finetune_api.uris import S3Uri

    put_folder(storage, base, prefix := S3Uri.parse(f"s3://{bucket}/base"))
    copytree(trained / "adapter", home / "mine" / "adapter")
    manifest = json.loads((trained / "manifest.json").read_text()) | {"baseUri": str(prefix)}
    (home / "mine" / "manifest.json").write_text(json.dumps(manifest))
    for _ in range(2):
        assert complete("mine", "-p", "fox 1 ->")["choices"][0]["text"] == " yes"
    assert len([*(home / ".cache" / "finetune" / "models").iterdir()]) == 1


def test_twenty_probabilities_are_a_part_of_one(base: Path, complete: Any) -> None:
    logs = complete(str(base), "-p", "abc", "-M", "1", "--logprobs", "20")["choices"][0]["logprobs"]
    assert 0 < sum(map(math.exp, logs["top_logprobs"][0].values())) <= 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ("base", "-p", "a" * 64),
            1,
            "the prompt has 64 tokens, but the model's context has only 64",
        ),
        (("base", "-p", "a", "-M", "64"), 1, "set --max-tokens to at most 63"),
        (("pickled", "-p", "a"), 1, "model.safetensors is missing"),
        (("no-template", "-g", "user", "a"), 1, "has no chat template"),
    ],
)
def test_an_unusable_model_or_prompt_is_a_sentence(
    run: Run, base: Path, home: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    from shutil import copytree

    copytree(base, home / "base")
    copytree(base, home / "pickled")
    (home / "pickled" / "model.safetensors").rename(home / "pickled" / "pytorch_model.bin")
    copytree(base, home / "no-template")
    for path in (home / "no-template").glob("chat_template*"):
        path.unlink()
    ran = run("complete", *arguments, "--cpu")
    assert (ran.returncode, words in ran.stderr) == (code, True), ran.stderr
    assert "Traceback" not in ran.stderr
