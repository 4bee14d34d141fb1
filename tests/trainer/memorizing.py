"""Trains a tiny model of each family of the gallery until it knows its chats by heart.

`python -m tests.trainer.memorizing <folder> <prompt loss weight> <family> ...`: real prepare, real
training, real publishing, all in one process, because the imports take longer than a family. Then
transformers and `finetune complete` answer from the published folder. Prints one JSON object for
each family.
"""

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_data.prepare.job import prepare
from finetune_data.read.examples import Conversation, is_learned
from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from finetune_trainer.launcher.downloads import Downloads
from finetune_trainer.progress import ProgressTracker
from finetune_trainer.rank.sigterm import SigtermFlag
from finetune_trainer.workdir import WorkDir
from tests.data.builders import jsonl, prepare_task, put_folder
from tests.data.gallery.conversations import Chat
from tests.data.gallery.families import CALLS, FAMILIES, TOOLS, Family
from tests.trainer import support

CONTEXT = 1024
LONGEST = 96  # tokens of an answer
# All in one epoch over copies, because each epoch ends with a checkpoint.
STEPS = 60
STEPS_WITH_CALLS = 160
TOOL = {
    "type": "function",
    "function": {
        "name": "forecast",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def plain_chats() -> list[dict[str, Any]]:
    answers = {"Where is the parcel?": "At noon.", "Is it paid?": "Yes, twice.", "Help me": "Soon."}
    return [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in answers.items()
    ]


def tool_chats() -> list[dict[str, Any]]:
    chats = []
    for city, weather in (("Lyon", "mild"), ("Oslo", "cold")):
        function = {"name": "forecast", "arguments": json.dumps({"city": city})}
        call = {"id": "a1b2c3d4e", "type": "function", "function": function}
        chats.append(
            {
                "messages": [
                    {"role": "user", "content": f"Is it mild in {city}?"},
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "content": weather, "name": "forecast"}
                    | {"tool_call_id": "a1b2c3d4e"},
                    {"role": "assistant", "content": f"It is {weather}."},
                ],
                "tools": [TOOL],
            }
        )
    return chats


def has_calls(family: Family) -> bool:
    return family.is_supported({TOOLS, CALLS}, has_tools=True)


def chats_of(family: Family) -> list[dict[str, Any]]:
    return [*plain_chats(), *(tool_chats() if has_calls(family) else [])]


def write_base(family: Family, folder: Path) -> Path:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    family.write(folder)
    stops = GenerationConfig.from_pretrained(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    stops.save_pretrained(folder)
    return folder


def train(family: Family, folder: Path, storage: Storage, weight: float) -> Path:
    """The published folder."""
    from finetune_trainer.rank.lifecycle import run_rank

    base = write_base(family, folder / "base")
    steps = STEPS_WITH_CALLS if has_calls(family) else STEPS
    uri = S3Uri(support.BUCKET, f"{family.name}-{weight}")
    put_folder(storage, base, uri.child("model"))
    storage.write_bytes(uri.child("train.jsonl"), jsonl(chats_of(family) * steps))
    asked = prepare_task(support.BUCKET)
    outcome = prepare(
        asked.replace(
            run=asked.run.replace(output=str(uri.child("out"))),
            base=asked.base.replace(uri=str(uri.child("model")), context_length=CONTEXT),
            training_file=str(uri.child("train.jsonl")),
        ),
        storage,
        make(folder / "prepare"),
    )
    assert outcome.prepared is not None, outcome.failure
    prepared = outcome.prepared
    made = support.train_task(f"{family.name}-{weight}")
    task: TrainTask = made.replace(
        run=made.run.replace(output=str(uri.child("out"))),
        base=made.base.replace(uri=str(uri.child("model")), context_length=CONTEXT),
        dataset=prepared.dataset,
        training_examples=prepared.training_examples,
        hyperparameters=prepared.hyperparameters.replace(
            n_epochs=1,
            batch_size=prepared.training_examples // steps,
            learning_rate_multiplier=None,
            learning_rate=1e-2,
            prompt_loss_weight=weight,
        ),
        nodes=1,
    )
    workdir = WorkDir(make(folder / "work"))
    downloads = Downloads(task, workdir, storage)
    downloads.run()
    assert downloads.error is None, downloads.error
    progress = ProgressTracker(1, starting_detail=workdir.download_detail)
    published = run_rank(task, workdir, progress, SigtermFlag(is_training=lambda: True))
    assert published is not None
    return workdir.model


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def turns(family: Family) -> Iterator[tuple[Conversation, int]]:
    for line, record in enumerate(chats_of(family), 1):
        chat = Chat(record["messages"], record.get("tools")).parsed(line)
        for index, message in enumerate(chat.messages):
            if is_learned(message):
                yield chat, index


def for_server(family: Family, message: dict[str, Any]) -> dict[str, Any]:
    """A message as a client sends it, in the form that the template needs."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    if family.arguments == "object":
        functions = [call["function"] for call in calls]
        objects = [{**it, "arguments": json.loads(it["arguments"])} for it in functions]
        calls = [
            {**call, "function": function} for call, function in zip(calls, objects, strict=True)
        ]
    return {**message, "tool_calls": calls}


def answers(family: Family, folder: Path) -> list[dict[str, Any]]:
    """What transformers generates for each learned turn, with the folder's own settings."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    found = []
    for chat, index in turns(family):
        messages = [for_server(family, message) for message in chat.messages[:index]]
        if family.is_none:  # transformers drops a key that is null
            for message in messages:
                if message.get("tool_calls"):
                    message["content"] = None
            [text], _ = render_jinja_template(
                [messages],
                tools=chat.tools,
                chat_template=tokenizer.get_chat_template(tools=chat.tools),
                add_generation_prompt=True,
                **tokenizer.special_tokens_map,
            )
            prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            prompt = tokenizer.apply_chat_template(
                messages, tools=chat.tools, add_generation_prompt=True, return_dict=False
            )
        ids = torch.tensor([prompt])
        with torch.no_grad():
            made = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=LONGEST, do_sample=False
            )
        new = made[0, len(prompt) :].tolist()
        message = chat.messages[index]
        expected = [message["content"]]
        for called in message.get("tool_calls") or []:
            function = called["function"]
            expected += [function["name"], *json.loads(function["arguments"]).values()]
        stops = model.generation_config.eos_token_id
        stops = [stops] if isinstance(stops, int) else stops
        is_stopped = len(new) < LONGEST and new[-1] in stops
        text = tokenizer.decode(new)
        found.append({"expected": expected, "text": text, "stopped": is_stopped})
    return found


def completions(folder: Path) -> list[dict[str, Any]]:
    """What `finetune complete` answers to the questions without tools."""
    from click.testing import CliRunner

    from finetune_cli.commands.complete.command import command

    found = []
    for record in plain_chats():
        question, answer = (message["content"] for message in record["messages"])
        arguments = [str(folder), "-g", "user", question, "-t", "0", "-o", "json", "--cpu"]
        ran = CliRunner().invoke(command, [*arguments, "-M", str(LONGEST)])
        assert ran.exit_code == 0, ran.output
        [choice] = json.loads(ran.stdout)["choices"]
        text = choice["message"]["content"]
        found.append(
            {"expected": [answer], "text": text, "stopped": choice["finish_reason"] == "stop"}
        )
    return found


def main(folder: Path, weight: float, names: list[str]) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(support.free_port())}
    storage = open_storage()
    for name in names or FAMILIES:
        begin = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            published = train(FAMILIES[name], make(folder / name), storage, weight)
            made = {
                "family": name,
                "generated": answers(FAMILIES[name], published),
                "completed": completions(published),
            }
        print(json.dumps(made | {"seconds": round(time.monotonic() - begin, 1)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
    sys.stdout.flush()
    os._exit(0)
