"""Commands with a hostile model on this machine: one sentence, in bounded time and memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from finetune_api.names import EXIT_OK
from tests.cli.chat_model import lines, write_chat_model
from tests.support import hostile
from tests.support.hostile import BODIES, GIB, WHEN
from tests.support.tiny_model import make_tiny_model

pytestmark = pytest.mark.slow
ATTACK = {
    "messages": [{"role": "user", "content": "Attack"}, {"role": "assistant", "content": "b"}]
}


def refused(*arguments: str, most: float = 1.5) -> str:
    """What a command prints that refuses a model. most: GiB that it may use."""
    ended = hostile.run_measured(["finetune_cli", *arguments])
    assert ended.code != EXIT_OK
    assert ended.memory < most * GIB, ended.output
    assert "Traceback" not in ended.output
    assert "internal error" not in ended.output
    assert ended.output.count("error: ") == 1, ended.output
    return ended.output


@pytest.mark.parametrize("command", ["tokenize", "complete", "prepare-data"])
def test_a_template_that_explodes_is_named(command: str, tmp_path: Path) -> None:
    folder = write_chat_model(tmp_path / "model", WHEN.replace("BODY", BODIES["allocates"]))
    data = tmp_path / "chats.jsonl"
    data.write_text(lines(ATTACK))
    arguments = {
        "tokenize": ("-m", str(folder), "-f", str(data)),
        "complete": (str(folder), "--message", "user", "Attack", "--cpu"),
        "prepare-data": (str(data), "-m", str(folder), "--yes"),
    }
    assert "the chat template of base model" in refused(command, *arguments[command])


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ('"num_key_value_heads": 3', "config.json"),
        ('"intermediate_size": 16000000', "weights of the base model do not match"),
        ('"quantization_config": {"quant_method": "bitsandbytes"}', "is quantized"),
    ],
)
def test_settings_that_do_not_fit_are_found_before_the_model_is_loaded(
    setting: str, problem: str, tmp_path: Path
) -> None:
    folder = make_tiny_model(tmp_path / "model")
    name = setting.split('"')[1]
    hostile.change_json(folder / "config.json", lambda value: value.pop(name, None))
    hostile.with_setting(folder, setting)
    output = refused("complete", str(folder), "-p", "a", "--cpu", most=3)
    assert problem in output


def test_a_run_refuses_absurd_settings_of_a_model_on_this_machine(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    hostile.change_json(folder / "config.json", lambda value: value.pop("vocab_size"))
    hostile.with_setting(folder, '"vocab_size": 1000000000')
    (tmp_path / "train.jsonl").write_text(lines({"prompt": "a", "completion": "b"}))
    entry = {"name": "tiny", "uri": str(folder), "pretrainingLearningRate": 0.01}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump([{**entry, "contextLength": 64}]))
    manifest = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": "tone"},
        "spec": {"model": "tiny", "trainingFile": "train.jsonl"},
    }
    (tmp_path / "tone.yaml").write_text(yaml.safe_dump(manifest))
    options = ("--models", str(tmp_path / "models.yaml"), "-o", str(tmp_path / "out"), "--cpu")
    output = refused("run", "-f", str(tmp_path / "tone.yaml"), *options)
    assert "config.json has vocab_size 1,000,000,000" in output
    shutil.rmtree(tmp_path / "out")
