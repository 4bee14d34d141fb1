"""One data file to one tokenised split: read, check, encode and write in a single pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_api.names import Reason
from finetune_api.tasks import DataLimits
from finetune_data.array_files import SplitFiles
from finetune_data.checks import CheckedFile, Fingerprints
from finetune_data.dataset import InputFile, SplitCounts
from finetune_data.failures import BaseModelError
from finetune_data.findings import TOO_LONG, FileFindings, Finding, counted
from finetune_data.inputs import HashedStream
from finetune_data.progress import Ticker, say
from finetune_data.rows import Row, read_rows
from finetune_data.tokenization import COMPLETION, PROMPT, Encoded, ExampleTokenizer

# One batch for the tokenizer's threads: enough to keep them busy, little to hold in memory.
BATCH_LINES = 2_000
BATCH_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class SplitRules:
    """What an example must be."""

    model: str  # as the user wrote it, for messages
    context: int  # tokens
    limits: DataLimits


@dataclass(frozen=True)
class PreparedSplit:
    """A data file after its one pass."""

    source: InputFile
    checked: CheckedFile
    fingerprints: Fingerprints
    counts: SplitCounts
    paths: list[str]  # of the arrays, in the dataset's folder


def prepare_split(
    split: str,
    stream: HashedStream,
    folder: Path,
    *,
    tokenizer: ExampleTokenizer,
    rules: SplitRules,
    findings: FileFindings,
) -> PreparedSplit:
    """Read `stream` to its end and write the split's arrays into `folder`.

    Mistakes in the data become findings. Raises StorageError where the stream breaks, and
    BaseModelError where the tokenizer makes tokens that the model does not have.
    """
    fingerprints = Fingerprints()
    ticker = Ticker(f"checking and tokenising {findings.param}")
    with SplitFiles(folder, split) as files:
        too_large = _too_large(stream, rules.limits)
        items = iter([too_large]) if too_large else read_rows(stream, rules.limits)
        for batch in _batches(items):
            rows = [item for item in batch if isinstance(item, Row)]
            encoded = iter(tokenizer.encode((row.prompt, row.completion) for row in rows))
            right: list[tuple[list[int], bytes]] = []
            for item in batch:
                example = next(encoded) if isinstance(item, Row) else None
                finding = item if isinstance(item, Finding) else _too_long(item, example, rules)
                if finding is not None:
                    findings.add(finding)
                elif example is not None and isinstance(item, Row):
                    fingerprints.add(item)
                    right.append((example.tokens, example.roles))
            _check_vocabulary(right, tokenizer, rules)
            files.append(right)
            ticker(stream.position, stream.size)
    checked = CheckedFile(findings, files.examples, rules.model, rules.context)
    say(
        f"{findings.param} {findings.uri}: {counted(files.examples, 'example')}, "
        f"{counted(files.tokens, 'token')}, {counted(findings.count, 'wrong line')}"
    )
    counts = SplitCounts(
        examples=files.examples,
        tokens=files.tokens,
        skipped_lines=findings.count,
        lines=checked.lines,
        longest_example=files.longest,
    )
    return PreparedSplit(stream.identity, checked, fingerprints, counts, files.paths)


def _too_large(stream: HashedStream, limits: DataLimits) -> Finding | None:
    """Known before a byte is read, unless the file is compressed."""
    if stream.size <= limits.max_file_bytes:
        return None
    message = f"the file has {stream.size:,} bytes, more than the {limits.max_file_bytes:,} allowed"
    return Finding("file-too-large", message, fatal=True)


def _batches(items: Iterable[Row | Finding]) -> Iterator[list[Row | Finding]]:
    batch: list[Row | Finding] = []
    characters = 0
    for item in items:
        batch.append(item)
        if isinstance(item, Row):
            characters += len(item.prompt) + len(item.completion)
        if len(batch) >= BATCH_LINES or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _too_long(row: Row, example: Encoded | None, rules: SplitRules) -> Finding | None:
    if example is None or len(example.tokens) <= rules.context:
        return None
    prompt, completion = example.roles.count(PROMPT), example.roles.count(COMPLETION)
    return Finding(
        TOO_LONG,
        f"{len(example.tokens):,} tokens (prompt {prompt:,}, completion {completion:,}) are more "
        f"than the {rules.context:,} that {rules.model} takes",
        row.line,
    )


def _check_vocabulary(
    examples: list[tuple[list[int], bytes]], tokenizer: ExampleTokenizer, rules: SplitRules
) -> None:
    highest = max((max(tokens) for tokens, _ in examples), default=0)
    if tokenizer.vocabulary is not None and highest >= tokenizer.vocabulary:
        raise BaseModelError.of(
            Reason.BASE_MODEL_INVALID,
            f"base model {rules.model!r} can't be used: its tokenizer makes token {highest:,}, and "
            f"its config.json has a vocabulary of {tokenizer.vocabulary:,}",
            param="model",
        )
