"""Measured in a new process: the pipeline of the prepare Job, or plain tokenizers on its texts."""

import json
import sys
import time
from pathlib import Path

from bench.data.corpus import corpus, folder
from bench.machine import report

VOCABULARY = 32_000
ROWS = 100_000
BATCH = 1000  # texts in a batch of the plain tokenizers


def tokenizer_folder() -> Path:
    """Return a byte-level BPE tokenizer that is trained once on the corpus."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = folder() / f"tokenizer-{VOCABULARY}"
    if (path / "config.json").exists():
        return path
    path.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["</s>"], show_progress=False
    )
    with corpus().open() as file:
        texts = [json.loads(next(file))["prompt"] for _ in range(60_000)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (path / "config.json").write_text(f'{{"model_type": "llama", "vocab_size": {VOCABULARY}}}')
    return path


def ours() -> None:
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
    path = corpus(ROWS)
    with tempfile.TemporaryDirectory() as name, FindingsFile(Path(name) / "report") as findings:
        begin = time.perf_counter()
        made = prepare_split(
            "train",
            Reader(LocalSource(path), ReadOptions(limits=limits)),
            Path(name),
            tokenizer=tokenizer,
            rules=SplitRules("bench", 10**6, limits),
            findings=FileFindings("trainingFile", str(path), findings),
        )
        seconds = time.perf_counter() - begin
    report(seconds=seconds, tokens=made.counts.tokens)


def raw() -> None:
    """Measure the lower bound: the same texts, already in memory, on all cores, without checks."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder() / "tokenizer.json"))
    texts = []
    with corpus(ROWS).open() as file:
        for line in file:
            row = json.loads(line)
            texts += [row["prompt"], row["completion"]]
    begin = time.perf_counter()
    tokens = 0
    for start in range(0, len(texts), BATCH):
        batch = tokenizer.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False)
        tokens += sum(map(len, batch))
    report(seconds=time.perf_counter() - begin, tokens=tokens)


if __name__ == "__main__":
    {"ours": ours, "raw": raw}[sys.argv[1]]()
