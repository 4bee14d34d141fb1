"""One data file to one tokenized split: read, check, encode and write in a single pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune_api.limits import DataLimits
from finetune_api.names import Reason
from finetune_data.console import Ticker, say
from finetune_data.errors import BaseModelError
from finetune_data.lint.columns import Columns
from finetune_data.lint.content import EmptyPrompts, Labels
from finetune_data.lint.fingerprints import Fingerprints
from finetune_data.lint.style import CommonEnding
from finetune_data.prepare.checks import CheckedFile, Seen
from finetune_data.read.examples import COMPLETION, PROMPT, Batch, Example
from finetune_data.read.findings import TOO_LONG, FileFindings, Finding, counted
from finetune_data.read.reader import Reader
from finetune_data.read.sources import InputFile
from finetune_data.tokenize.array_files import SplitFiles
from finetune_data.tokenize.dataset import SplitCounts
from finetune_data.tokenize.pipeline import encode_batches
from finetune_data.tokenize.tokenizer import Encoded, ExampleTokenizer


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
    seen: Seen
    counts: SplitCounts
    paths: list[str]  # of the arrays, in the dataset's folder


def prepare_split(
    split: str,
    reader: Reader,
    folder: Path,
    *,
    tokenizer: ExampleTokenizer,
    rules: SplitRules,
    findings: FileFindings,
) -> PreparedSplit:
    """Read the file to its end and write the split's arrays into `folder`.

    Mistakes in the data become findings. Raises StorageError where the stream breaks, DataError
    for chats without a chat template, and BaseModelError where the tokenizer makes tokens that the
    model does not have.
    """
    rows, labels, empty = Fingerprints(), Labels(), EmptyPrompts()
    ending = CommonEnding("prompt")
    rows.begin(findings.param)
    is_chat = False
    ticker = Ticker(f"checking and tokenizing {findings.param}")
    with SplitFiles(folder, split) as files:
        for batch, encoded in encode_batches(reader.batches(), tokenizer):
            right, examples = _sort(batch, encoded, rules, findings)
            files.append([(example.tokens, example.roles) for example in right])
            _check_vocabulary(files.highest, tokenizer, rules)
            columns = Columns(examples, len(rows), 0)
            is_chat = is_chat or columns.is_chat
            for check in (rows, labels, empty, ending):
                check.look(columns)
            ticker(batch.position, batch.size)
    checked = CheckedFile(findings, files.examples, rules.model, rules.context)
    description = reader.description
    say(
        f"{findings.param} {findings.uri}: {description.format or 'empty'}"
        f"{', ' + description.shape if description.shape else ''}, "
        f"{counted(files.examples, 'example')}, {counted(files.tokens, 'token')}, "
        f"{counted(findings.count, 'wrong line')}"
    )
    counts = SplitCounts(
        examples=files.examples,
        tokens=files.tokens,
        skipped_lines=findings.count,
        lines=checked.lines,
        longest_example=files.longest,
        prompt_tokens=files.prompt_tokens,
    )
    separator = ending.text if ending.has_others and not is_chat else ""
    seen = Seen(rows, labels, files.examples - empty.count, is_chat, separator)
    return PreparedSplit(reader.source.identity, checked, seen, counts, files.paths)


def _sort(
    batch: Batch,
    encoded: list[Encoded | Finding],
    rules: SplitRules,
    findings: FileFindings,
) -> tuple[list[Encoded], list[Example]]:
    """The examples that fit; what is wrong with the others goes to `findings`, in line order."""
    wrong = list(batch.findings)
    right: list[Encoded] = []
    examples: list[Example] = []
    for example, found in zip(batch.examples, encoded, strict=True):
        finding = found if isinstance(found, Finding) else _too_long(example, found, rules)
        if finding is not None:
            wrong.append(finding)
        elif isinstance(found, Encoded):
            right.append(found)
            examples.append(example)
    for finding in sorted(wrong, key=lambda one: (one.fatal, one.line or 0)):
        findings.add(finding)
    return right, examples


def _too_long(example: Example, found: Encoded, rules: SplitRules) -> Finding | None:
    if len(found.tokens) <= rules.context:
        return None
    prompt, completion = found.roles.count(PROMPT), found.roles.count(COMPLETION)
    return Finding(
        TOO_LONG,
        f"{len(found.tokens):,} tokens (prompt {prompt:,}, completion {completion:,}) are more "
        f"than the {rules.context:,} that {rules.model} takes",
        example.line,
    )


def _check_vocabulary(highest: int, tokenizer: ExampleTokenizer, rules: SplitRules) -> None:
    if tokenizer.vocabulary is not None and highest >= tokenizer.vocabulary:
        raise BaseModelError.of(
            Reason.BASE_MODEL_INVALID,
            f"base model {rules.model!r} can't be used: its tokenizer makes token {highest:,}, and "
            f"its config.json has a vocabulary of {tokenizer.vocabulary:,}",
            param="model",
        )
