"""From one data file to one tokenized split: read, check, encode, and write in a single pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from finetune_data.confined.sections import set_place, watched
from finetune_data.lint.checks.endings import CommonEnding
from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import DataSummary
from finetune_data.pod_log import ProgressLog, log
from finetune_data.prepare.checks import CheckedFile
from finetune_data.read.examples import Batch, Example
from finetune_data.read.findings import FileFindings, Finding, counted
from finetune_data.read.reader import Reader, reading
from finetune_data.read.sources import InputFile
from finetune_data.tokenize.acceptance import Acceptance
from finetune_data.tokenize.array_files import SplitFiles
from finetune_data.tokenize.dataset import LearnedEnd, SplitCounts
from finetune_data.tokenize.encoded import Encoded, TurnEnd
from finetune_data.tokenize.pipeline import encode_batches
from finetune_data.tokenize.tokenizer import Tokenizing


@dataclass(frozen=True)
class SplitRules:
    """The requirements of an example."""

    model: str  # as the user wrote it, for messages
    context: int  # tokens


@dataclass(frozen=True)
class Observations:
    """What is observed of the files of a split, which are read one after the other."""

    summary: DataSummary = field(default_factory=DataSummary)
    ending: CommonEnding = field(default_factory=lambda: CommonEnding("prompt"))


@dataclass(frozen=True)
class PreparedSplit:
    """A data file after its only pass."""

    source: InputFile
    checked: CheckedFile
    summary: DataSummary  # of this file, and of the files of the split before it
    has_chats: bool
    separator: str  # the common ending of all prompts; empty if there is none
    counts: SplitCounts
    ends: list[LearnedEnd]  # the most frequent first
    paths: list[str]  # of the arrays, in the dataset's folder


def prepare_split(
    split: str,
    reader: Reader,
    folder: Path,
    *,
    tokenizer: Tokenizing,
    rules: SplitRules,
    findings: FileFindings,
    observations: Observations | None = None,
) -> PreparedSplit:
    """Read the file to its end and write the split's arrays into `folder`.

    observations: of the files of the same split before it, if there are any.

    Mistakes in the data become findings. Raises StorageError if the stream breaks, DataError for
    chats without a chat template, and BaseModelError if the tokenizer makes tokens that the model
    does not have.
    """
    acceptance = Acceptance(tokenizer, rules.model, rules.context)
    observations = observations or Observations()
    summary, ending, has_chats = observations.summary, observations.ending, False
    summary.rows.begin(findings.param)
    earlier = len(summary.rows)
    progress = ProgressLog(f"checking and tokenizing {findings.param}")
    endings: Counter[TurnEnd] = Counter()
    section = reading(f"{findings.param} {findings.uri}", findings.param)
    set_place(f"{findings.param} {findings.uri}")
    with SplitFiles(folder, split) as files:
        for batch, encoded in encode_batches(watched(reader.batches(), section), tokenizer):
            valid, examples = _separate(batch, encoded, acceptance, findings)
            files.append([(example.tokens, example.roles) for example in valid])
            endings.update(end for example in valid for end in example.endings)
            acceptance.check_vocabulary(files.highest)
            columns = Columns(examples, len(summary.rows), 0)
            has_chats |= columns.is_chat
            summary.observe(columns)
            ending.observe(columns)
            progress(batch.position, batch.size)
    checked = CheckedFile(findings, len(summary.rows) - earlier, rules.model, rules.context)
    description = reader.description
    log(
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
    separator = ending.text if ending.has_others and not summary.is_chat else ""
    identity = reader.source.identity
    ends = [
        LearnedEnd(
            token=end.token, text=tokenizer.texts([end.token])[0], answers=count, how=end.how
        )
        for end, count in endings.most_common()
    ]
    return PreparedSplit(
        identity, checked, summary, has_chats, separator, counts, ends, files.paths
    )


def _separate(
    batch: Batch,
    encoded: list[tuple[Encoded, ...] | Finding],
    acceptance: Acceptance,
    findings: FileFindings,
) -> tuple[list[Encoded], list[Example]]:
    """The training examples of all valid examples, and these.

    The findings about the others go to `findings`, in line order.
    """
    wrong = list(batch.findings)
    valid: list[Encoded] = []
    examples: list[Example] = []
    for example, found in zip(batch.examples, encoded, strict=True):
        finding = acceptance.refusal(example, found)
        if finding is not None:
            wrong.append(finding)
        elif not isinstance(found, Finding):
            valid += found
            examples.append(example)
    for finding in sorted(wrong, key=lambda one: (one.fatal, one.line or 0)):
        findings.add(finding)
    return valid, examples
