"""Hostile files in the prepare pod, as a process: one sentence, in bounded time and memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.names import ENV_LOCAL_ROOT, ENV_TASK, EXIT_USER, LOCAL_BUCKET, Reason
from finetune_api.outcome import Failure, Outcome
from tests.data.builders import jsonl, prepare_task, write_tokenizer
from tests.support import hostile
from tests.support.hostile import BODIES, GIB, RECURSION, SETTINGS, WHEN

pytestmark = pytest.mark.slow

CHATS = [
    {
        "messages": [
            {"role": "user", "content": "Attack" if number == 17 else f"Question {number}"},
            {"role": "assistant", "content": f"Answer {number}"},
        ]
    }
    for number in range(1, 31)
]


def model_in(root: Path, template: str | None = None) -> Path:
    """The base model below a local bucket, with a chat template."""
    settings = {"chat_template": template} if template else {}
    special = ("<|im_start|>", "<|im_end|>")
    return write_tokenizer(root / "model", special=special, size=1000, **settings)


def failure_of(root: Path, rows: list[dict[str, object]], *, most: float) -> Failure:
    """The failure of the prepare pod. most: GiB that it may use."""
    (root / "train.jsonl").write_bytes(jsonl(rows))
    environment = {ENV_LOCAL_ROOT: str(root), ENV_TASK: prepare_task(LOCAL_BUCKET).to_json()}
    ended = hostile.run_measured(["finetune_data"], **environment)
    outcome = Outcome.parse(ended.message)
    assert outcome is not None, ended.output
    assert outcome.failure is not None, ended.output
    assert ended.code == EXIT_USER
    assert ended.memory < most * GIB
    assert "Traceback" not in ended.output
    assert "\n" not in outcome.failure.message
    return outcome.failure


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_template_that_explodes_on_one_message_is_named_with_its_line(
    body: str, tmp_path: Path
) -> None:
    model_in(tmp_path, WHEN.replace("BODY", body))
    failure = failure_of(tmp_path, [*CHATS], most=1.5)
    if failure.code == Reason.BASE_MODEL_INVALID:
        assert "the chat template of base model 'tiny'" in failure.message
        assert f"line 17 of trainingFile s3://{LOCAL_BUCKET}/train.jsonl" in failure.message
        assert "chat template" in str(failure.hint)
    else:  # an error of the template, which is a finding about the line
        assert failure.code == Reason.INVALID_DATA
        assert "line 17" in failure.message


def test_a_template_that_recurses_refuses_the_line(tmp_path: Path) -> None:
    model_in(tmp_path, WHEN.replace("BODY", RECURSION))
    failure = failure_of(tmp_path, [*CHATS], most=1.5)
    assert failure.code == Reason.INVALID_DATA
    assert "line 17" in failure.message


@pytest.mark.parametrize(
    "template",
    ["{{ 'a' * 3221225472 }}", BODIES["loops"], "{% for a in range(999999999) %}{% endfor %}"],
)
def test_a_template_that_explodes_while_it_is_observed_is_named(
    template: str, tmp_path: Path
) -> None:
    model_in(tmp_path, template)
    failure = failure_of(tmp_path, [*CHATS], most=1.5)
    assert "template" in failure.message


def test_a_tokenizer_whose_pattern_needs_exponential_time_is_named(tmp_path: Path) -> None:
    hostile.with_slow_pattern(model_in(tmp_path))
    row = {"prompt": f"{'a' * 200}b", "completion": " c"}
    failure = failure_of(tmp_path, [row], most=1.5)
    assert failure.code == Reason.BASE_MODEL_INVALID
    assert "tokenizer" in failure.message
    assert "base model 'tiny'" in failure.message
    assert f"trainingFile s3://{LOCAL_BUCKET}/train.jsonl" in failure.message


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS)
def test_absurd_settings_are_one_sentence(text: str, tmp_path: Path) -> None:
    hostile.with_setting(model_in(tmp_path), text)
    failure = failure_of(tmp_path, [{"prompt": "a", "completion": "b"}], most=1)
    assert failure.code == Reason.BASE_MODEL_INVALID
    assert "config.json" in failure.message
    assert len(failure.message) < 400


def sparse(name: str) -> Callable[[Path], None]:
    """A file of a terabyte that has only holes."""

    def make(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(2**40)

    return make


def deep(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text('{"a": ' * 100_000 + "1" + "}" * 100_000)

    return make


def many_merges(folder: Path) -> None:
    """Millions of merges, none of which can be used."""
    merges = ",".join(f'"a{number} b"' for number in range(3_000_000))
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text())
    value["model"]["merges"] = ["MERGES"]
    path.write_text(json.dumps(value).replace('"MERGES"', merges))


FILES = {
    **{f"huge {name}": sparse(name) for name in ("tokenizer.json", "config.json", "vocab.json")},
    "huge manifest": sparse("manifest.json"),
    "huge template": sparse("chat_template.jinja"),
    **{f"deep {name}": deep(name) for name in ("tokenizer.json", "tokenizer_config.json")},
    "deep added tokens": deep("added_tokens.json"),
    "many merges": many_merges,
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_hostile_files_of_a_model_are_one_sentence(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(model_in(tmp_path))
    failure = failure_of(tmp_path, [{"prompt": "a", "completion": "b"}], most=4)
    assert failure.code == Reason.BASE_MODEL_INVALID
    assert len(failure.message) < 500
