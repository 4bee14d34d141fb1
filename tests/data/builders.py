"""Objects for tests of the data package: a new tokenizer, tiny models, and tasks."""

import gzip
import json
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from finetune_api.tasks import BaseModelRef, PrepareTask, RunRef
from finetune_api.uris import S3Uri
from finetune_data.read.examples import Batch, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.read.reader import Reader, ReadOptions
from finetune_data.read.sources import LocalSource
from finetune_data.tokenize.encoded import Encoded
from finetune_data.tokenize.tokenizer import ExampleTokenizer
from finetune_storage.s3 import Storage

TEXTS = ["the quick brown fox jumps over the lazy dog", "yes no maybe", " positive negative\n"] * 4


def write_tokenizer(
    folder: Path,
    *,
    kind: str = "bytes",
    texts: Sequence[str] = TEXTS,
    special: Sequence[str] = (),
    size: int = 400,
    has_start: bool = False,
    **settings: Any,
) -> Path:
    """tokenizer.json and the two configs of a model; settings go into tokenizer_config.json.

    kind: "bytes" (like GPT-2), "metaspace" (like Llama 2: a space before every text), or "letters".
    texts: whose words become tokens. special: further special tokens. size: of the vocabulary.
    has_start: whether every text begins with `<s>`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder.mkdir(parents=True, exist_ok=True)
    special = ["<s>", "</s>", "<unk>", *special]
    if kind == "metaspace":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        alphabet = ["\n", "▁"]
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.enable_truncation(4)  # left over from some other use: must not be obeyed
    tokenizer.enable_padding(length=16)
    if has_start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    usual = {"eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", usual | settings)
    vocabulary = tokenizer.get_vocab_size()
    write_json(folder / "config.json", {"model_type": "llama", "vocab_size": vocabulary})
    return folder


def encoded(tokenizer: ExampleTokenizer, *examples: Example) -> list[Encoded]:
    """All training examples; none may be refused."""
    made: list[Encoded] = []
    for found in tokenizer.encode(examples):
        assert not isinstance(found, Finding), found
        made += found
    return made


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def safetensors_bytes(numbers: int = 4) -> bytes:
    """A complete safetensors file with one float32 tensor."""
    size = 4 * numbers
    tensor = {"dtype": "F32", "shape": [numbers], "data_offsets": [0, size]}
    header = json.dumps({"weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def put_folder(storage: Storage, folder: Path, uri: S3Uri) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            storage.upload_file(path, uri.child(str(path.relative_to(folder))))


def jsonl(rows: Iterable[Any]) -> bytes:
    """Dicts become JSON lines, and text and bytes stay unchanged."""
    lines = (json.dumps(row) if isinstance(row, dict) else row for row in rows)
    return b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)


def examples(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"prompt": f"question {n} ->", "completion": f" answer {n}"}
        for n in range(start, start + count)
    ]


def reader(data: bytes, name: str = "train.jsonl", **options: Any) -> Reader:
    """A reader of a temporary file."""
    folder = Path(mkdtemp(prefix="finetune-test-"))
    weakref.finalize(made := _reader(folder / name, data, options), rmtree, folder)
    return made


def _reader(path: Path, data: bytes, options: dict[str, Any]) -> Reader:
    path.write_bytes(data)
    return Reader(LocalSource(path), ReadOptions(**options))


def read(data: bytes, name: str = "train.jsonl", **options: Any) -> list[Example | Finding]:
    """Every example and finding, in line order."""
    found: list[Example | Finding] = []
    for batch in reader(data, name, **options).batches():
        assert isinstance(batch, Batch)
        found += [*batch.examples, *batch.findings]
    return sorted(
        found, key=lambda item: (isinstance(item, Finding) and item.fatal, item.line or 0)
    )


def parse(text: str | bytes) -> Example | Finding:
    """Line 17 of a file of prompts and completions."""
    data = text.encode() if isinstance(text, str) else text
    *_, last = read(b'{"prompt": "a", "completion": "b"}\n' * 16 + data)
    return last


def row(text: str | bytes) -> Row:
    parsed = parse(text)
    assert isinstance(parsed, Row), parsed
    return parsed


def base_model(uri: str = "s3://models/tiny", **changes: Any) -> BaseModelRef:
    values: dict[str, Any] = {
        "name": "tiny",
        "root": "tiny",
        "uri": uri,
        "pretraining_learning_rate": 1e-4,
        "context_length": 64,
    }
    return BaseModelRef(**(values | changes))


def prepare_task(bucket: str, **changes: Any) -> PrepareTask:
    values: dict[str, Any] = {
        "run": RunRef(
            namespace="team", name="tone", uid="0123456789abcdef", output=f"s3://{bucket}/out"
        ),
        "base": base_model(f"s3://{bucket}/model"),
        "training_file": f"s3://{bucket}/train.jsonl",
    }
    return PrepareTask(**(values | changes))


def compress(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def texts(findings: Sequence[Any]) -> list[str]:
    return [str(finding) for finding in findings]


@contextmanager
def objects_read(storage: Storage, suffix: str = "") -> Iterator[list[str]]:
    """The names of the objects that are read inside: the last parts of keys with the suffix."""
    names: list[str] = []

    def record(params: dict[str, str], **_: object) -> None:
        if params["Key"].endswith(suffix):
            names.append(params["Key"].rpartition("/")[2])

    events = storage._client.meta.events
    events.register("before-parameter-build.s3.GetObject", record)
    yield names
    events.unregister("before-parameter-build.s3.GetObject", record)
