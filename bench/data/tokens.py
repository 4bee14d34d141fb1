"""Measured in a new process: the pipeline of the prepare Job, or plain tokenizers on its texts.

Chats have two baselines: plain tokenizers on texts that were rendered before the measurement, and
transformers' rendering followed by plain tokenizers, which is the least that any trainer does.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from bench.data.corpus import chats, corpus, folder
from bench.machine import report

VOCABULARY = 32_000
ROWS = 100_000
CHATS = 20_000
BATCH = 1000  # texts in a batch of the plain tokenizers
CONTROL = ["</s>", "<|start|>", "<|end|>", "<tool>", "</tool>"]
TEMPLATE = """\
{%- if tools %}
    {{- '<|start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
    {{- '<|end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|start|>system\\n' + messages[0].content + '<|end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {{- '<|start|>assistant\\n' + (message.content or '') }}
        {%- for call in message.tool_calls %}
            {{- '<tool>' + call.function | tojson + '</tool>' }}
        {%- endfor %}
        {{- '<|end|>\\n' }}
    {%- elif message.role in ['user', 'assistant'] or not loop.first %}
        {{- '<|start|>' + message.role + '\\n' + message.content + '<|end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant\\n' }}{%- endif %}
"""


def tokenizer_folder() -> Path:
    """Return a byte-level BPE tokenizer that is trained once on the corpus."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = folder() / f"tokenizer-{VOCABULARY}-chat"
    if (path / "config.json").exists():
        return path
    path.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=CONTROL, show_progress=False
    )
    with corpus().open() as file:
        texts = [json.loads(next(file))["prompt"] for _ in range(60_000)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (path / "chat_template.jinja").write_text(TEMPLATE)
    (path / "config.json").write_text(f'{{"model_type": "llama", "vocab_size": {VOCABULARY}}}')
    return path


def ours(path: Path) -> None:
    """Measure the path from the file to the arrays on disk: reading, checks, and tokens."""
    import tempfile

    from finetune_api.limits import DataLimits
    from finetune_data.prepare.tokenize_file import SplitRules, prepare_split
    from finetune_data.read.findings import FileFindings, FindingsFile
    from finetune_data.read.reader import Reader, ReadOptions
    from finetune_data.read.sources import LocalSource
    from finetune_data.tokenize.loading import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder(), "bench")
    limits = DataLimits(max_file_bytes=10**10)
    with tempfile.TemporaryDirectory() as name, FindingsFile(Path(name) / "report") as findings:
        begin = time.perf_counter()
        made = prepare_split(
            "train",
            Reader(LocalSource(path), ReadOptions(limits=limits)),
            Path(name),
            tokenizer=tokenizer,
            rules=SplitRules("bench", 10**6),
            findings=FileFindings("trainingFile", str(path), findings),
        )
        seconds = time.perf_counter() - begin
    report(seconds=seconds, tokens=made.counts.tokens)


def row_texts() -> list[str]:
    with corpus(ROWS).open() as file:
        rows = [json.loads(line) for line in file]
    return [text for row in rows for text in (row["prompt"], row["completion"])]


def conversations() -> list[Any]:
    with chats(CHATS).open() as file:
        return [json.loads(line)["messages"] for line in file]


def rendered(messages: list[Any]) -> list[str]:
    """Each conversation as the template renders it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    found, _ = render_jinja_template(messages, chat_template=TEMPLATE)
    return list(found)


def raw(make: Callable[[], list[str]]) -> None:
    """Measure the texts from `make`, in memory, on all cores, without checks."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder() / "tokenizer.json"))
    begin = time.perf_counter()
    texts = make()
    tokens = 0
    for start in range(0, len(texts), BATCH):
        batch = tokenizer.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False)
        tokens += sum(map(len, batch))
    report(seconds=time.perf_counter() - begin, tokens=tokens)


if __name__ == "__main__":
    sys.modules["torch"] = cast("ModuleType", None)  # as in the image of the prepare Job
    match sys.argv[1]:
        case "rows":
            ours(corpus(ROWS))
        case "raw rows":
            texts = row_texts()
            raw(lambda: texts)
        case "chats":
            ours(chats(CHATS))
        case "raw chats":
            texts = rendered(conversations())
            raw(lambda: texts)
        case "rendered chats":
            found = conversations()
            rendered(found[:1])  # compiles the template
            raw(lambda: rendered(found))
