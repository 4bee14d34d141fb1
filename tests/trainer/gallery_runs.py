"""Trains a tiny model for each family of the gallery, and asks it for its turns again.

`python -m tests.trainer.gallery_runs FOLDER` is one process, so that torch is imported once. It
runs `finetune run` and `finetune complete` with their code, except that the training pod is this
process instead of a new one, and that the base models, which differ in their tokenizers only, are
not checked. It writes a line of JSON for each run to FOLDER/results.jsonl.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any
from unittest.mock import patch

from finetune_api.names import ENV_LOCAL_ROOT
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from tests.data.gallery import conversations as talk
from tests.data.gallery import families as need
from tests.data.gallery.conversations import Chat
from tests.data.gallery.families import FAMILIES, Family
from tests.data.gallery.oracle import Oracle
from tests.support.cases import every_nth

WEIGHTS = (0, 0.1)  # promptLossWeight
RUNS = every_nth(itertools.product(FAMILIES, WEIGHTS), 7)
REPEATED = 36  # copies of each conversation in the training file
CONTEXT = 1024
TOOL = {
    "type": "function",
    "function": {
        "name": "forecast",
        "description": "Weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def lessons(family: Family) -> list[Chat]:
    """What the model of a family memorizes: as much as its template supports."""
    chats = [
        Chat([talk.user("Is it mild?"), talk.answer("Yes, blue today.")]),
        Chat(
            [
                *(talk.user("A number?"), talk.answer("Three.")),
                *(talk.user("And one more"), talk.answer("Four\nfive.")),
            ]
        ),
    ]
    if need.SYSTEM in family.supports:
        chats.append(
            Chat([talk.system("In green."), talk.user("Is it mild?"), talk.answer("No, red.")])
        )
    if need.CALLS in family.all_supports:
        made = talk.call("forecast", {"city": "Lyon"})
        messages = [
            *(talk.user("Weather in Lyon?"), talk.calling(made)),
            *(talk.result("mild"), talk.answer("It is mild in Lyon.")),
        ]
        chats.append(Chat(messages, [TOOL] if need.TOOLS in family.all_supports else None))
    if need.REASONING in family.supports:
        thought = talk.answer("Five.", reasoning_content="Three and two.")
        chats.append(Chat([talk.user("Three and two?"), thought]))
    return chats


def make_base(family: Family, folder: Path) -> Path:
    """A tiny Llama with random weights and the family's tokenizer and template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    family.write(folder)
    written = folder / "generation_config.json"
    generation = written.read_bytes()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=json.loads((folder / "config.json").read_text())["vocab_size"],
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.1,  # large: it memorizes within fewer steps
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    written.write_bytes(generation)
    return folder


def train_here(task: TrainTask, root: Path) -> Outcome | None:
    """A training pod in this process: the downloads, then the only rank."""
    from finetune_storage.connect import open_storage
    from finetune_trainer.launcher.downloads import Downloads
    from finetune_trainer.progress import ProgressTracker
    from finetune_trainer.rank.lifecycle import run_rank
    from finetune_trainer.rank.sigterm import SigtermFlag
    from finetune_trainer.workdir import WorkDir

    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=root))
    workdir = WorkDir(folder)
    downloads = Downloads(task, workdir, open_storage())
    downloads.run()
    if downloads.error is not None:
        raise downloads.error
    progress = ProgressTracker(task.attempt, starting_detail=workdir.download_detail)
    sigterm = SigtermFlag(is_training=lambda: progress.is_ready)
    outcome = run_rank(task, workdir, progress, sigterm)
    shutil.rmtree(folder)
    return outcome


def finetune(*arguments: str) -> str:
    """The standard output of a command. Raises AssertionError with all output if it fails."""
    from finetune_cli.main import main

    out, errors = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        patch.object(sys, "argv", ["finetune", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert not code, out.getvalue() + errors.getvalue()
    return out.getvalue()


def train(family: Family, base: Path, folder: Path, weight: float) -> Path:
    """Train as `finetune run` does; returns the folder of the published model."""
    folder.mkdir()
    records = [
        {"messages": chat.messages} | ({"tools": chat.tools} if chat.tools else {})
        for chat in lessons(family)
    ]
    records += [record for record in records if len(record["messages"]) == 4]  # longer: twice
    lines = [json.dumps(record) + "\n" for record in records] * REPEATED
    (folder / "train.jsonl").write_text("".join(lines))
    entry = {"name": "tiny", "uri": str(base), "pretrainingLearningRate": 0.01}
    (folder / "models.yaml").write_text(json.dumps([entry | {"contextLength": CONTEXT}]))
    hyperparameters = {
        "nEpochs": 1,
        "batchSize": 4,
        "learningRate": 0.01,
        "promptLossWeight": weight,
    }
    spec = {"model": "tiny", "trainingFile": "train.jsonl", "hyperparameters": hyperparameters}
    manifest = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune"}
    manifest |= {"metadata": {"name": "gallery"}, "spec": spec}
    (folder / "finetune.yaml").write_text(json.dumps(manifest))
    command = "finetune_cli.commands.run.command"
    with patch(f"{command}.train", train_here), patch(f"{command}._check_base"):
        finetune(
            *("run", "-f", str(folder / "finetune.yaml"), "--cpu"),
            *("--models", str(folder / "models.yaml"), "-o", str(folder / "out")),
        )
    [model] = (folder / "out").glob("local/gallery-*/model")
    return model


def ask(oracle: Oracle, published: Path) -> list[dict[str, Any]]:
    """Every turn of the lessons: the expected text, and what the published model writes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(published)
    model = AutoModelForCausalLM.from_pretrained(published)
    asked = Oracle(oracle.family, published)
    asked.__dict__["tokenizer"] = tokenizer
    tokenizer.chat_control_tokens = [oracle.family.answer.text]
    found = []
    for chat in lessons(oracle.family):
        for index, message in enumerate(chat.messages):
            if message["role"] != "assistant":
                continue
            turn = oracle.turn(chat, index)
            written = oracle.decode(turn.context) + turn.text
            prompt = asked.ids(chat.messages[:index], chat.tools, True)
            limit = len(turn.text) + 8
            made = model.generate(torch.tensor([prompt]), max_new_tokens=limit)[0].tolist()
            found.append(
                {
                    "prompt": oracle.decode(prompt),
                    "expected": [written, oracle.again(written)],
                    "generated": oracle.decode(made),
                    "has_stopped": len(made) < len(prompt) + limit,
                    "content": message["content"],
                    "completed": complete(published, chat, index),
                }
            )
    return found


def complete(published: Path, chat: Chat, index: int) -> str | None:
    """The answer of `finetune complete`; None for what its command line cannot say."""
    before = chat.messages[:index]
    if chat.tools or any(message["role"] == "tool" for message in before):
        return None
    said = [part for message in before for part in ("-g", message["role"], message["content"])]
    answer = json.loads(
        finetune("complete", str(published), *said, "--cpu", "-t", "0", "-o", "json")
    )
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop", answer
    return str(choice["message"]["content"])


def main(folder: Path) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    from finetune_cli.commands.run.local_pods import free_port

    os.environ["MASTER_PORT"] = str(free_port())
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with (folder / "results.jsonl").open("w") as results:
        for name, weight in RUNS:
            family, own = FAMILIES[name], folder / f"{name}-{weight}"
            result: dict[str, Any] = {"family": name, "weight": weight}
            try:
                oracle = Oracle(family, make_base(family, folder / f"{name}-{weight}-base"))
                result["turns"] = ask(oracle, train(family, oracle.folder, own, weight))
            except BaseException:  # the other families are still tried
                result["error"] = traceback.format_exc()
            results.write(json.dumps(result) + "\n")
            results.flush()


if __name__ == "__main__":
    os.environ.pop(ENV_LOCAL_ROOT, None)
    main(Path(sys.argv[1]))
