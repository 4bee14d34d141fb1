"""All checks over all files, in one pass if that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from finetune_data.lint.check import Check
from finetune_data.lint.checks.endings import Ending
from finetune_data.lint.checks.refusals import UNFIT_MODEL
from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import DataSummary, Facts, Kind, Profile
from finetune_data.lint.fingerprints import Fingerprints
from finetune_data.lint.fixes import Field, Fix, LeaveOutWrong
from finetune_data.lint.lengths import Lengths
from finetune_data.lint.registry import CHECKS
from finetune_data.lint.remarks import LEVELS, Remark
from finetune_data.lint.token_counts import TokenCounts
from finetune_data.read.findings import Finding, counted, shown
from finetune_data.read.reader import Reader
from finetune_storage.progress import ProgressCallback

if TYPE_CHECKING:
    from finetune_data.tokenize.tokenizer import Tokenizing

FINDINGS_KEPT = 100
READABLE = {"missing-key", "mixed-shapes"}  # fatal codes of files that are readable but unusable


@dataclass
class Inspection:
    """The result of all checks."""

    kind: Kind
    examples: int
    validation_examples: int
    wrong: int  # lines that are no example
    refused: int  # examples that the trainer refuses; 0 without a base model
    findings: list[Finding]  # the first of both
    remarks: list[Remark]  # the most severe first
    classes: list[tuple[str, int]] | None  # the most frequent first
    lengths: list[tuple[str, int]]
    length_unit: str  # "tokens" or "characters"
    characters: int
    tokens: int | None
    rows: Fingerprints  # of the training files
    separator: str | None = None
    stop: str | None = None

    @property
    def fits_model(self) -> bool:
        """Whether the base model can encode the examples: it has a chat template for chats."""
        return all(remark.check != UNFIT_MODEL for remark in self.remarks)

    @property
    def fixes(self) -> list[Fix]:
        """The proposed fixes, in the order in which they are applied."""
        found = [remark.fix for remark in self.remarks if remark.fix is not None]
        return sorted(found, key=lambda fix: fix.order)


@dataclass
class _WrongLines:
    """Lines that are no example."""

    count: int = 0
    first: list[Finding] = field(default_factory=list)
    fatal: Finding | None = None

    def add(self, found: Sequence[Finding]) -> None:
        self.count += len(found)
        self.first += found[: FINDINGS_KEPT - len(self.first)]
        self.fatal = next((finding for finding in found if finding.fatal), self.fatal)


def inspect(
    training: Sequence[Reader],
    validation: Sequence[Reader] = (),
    *,
    profile: Profile = "auto",
    tokenizer: Tokenizing | None = None,
    context: int | None = None,
    model: str = "the base model",
    progress: ProgressCallback | None = None,
    registered: Sequence[Callable[[], Check]] = CHECKS,
) -> Inspection:
    """Run all checks. Reads each file once, and the training files twice if a check needs it.

    tokenizer: of the base model, which the examples must fit; context: the maximum number of tokens
    of an example; model: the base model, for messages. progress: gets the bytes done and the
    total. registered: the checks to run. Raises StorageError or DataError for a file that cannot be
    reached.
    """
    files = _FileReader(progress, (*training, *validation))
    wrong = _WrongLines()
    summary, held_out = DataSummary(), DataSummary()
    checks = [make() for make in registered]
    in_characters = Lengths()
    in_tokens, held_out_tokens = (
        _token_counts(tokenizer, model, context, files.names(readers))
        for readers in (training, validation)
    )
    for columns in files.columns(training, wrong, summary.rows):
        summary.observe(columns)
        in_characters.observe(columns.lengths)
        if in_tokens is not None:
            in_tokens.observe(columns)
        for check in checks:
            if check.applies(is_chat=columns.is_chat):
                check.observe(columns)
    for columns in files.columns(validation, wrong, held_out.rows):
        held_out.observe(columns)
        if held_out_tokens is not None:
            held_out_tokens.observe(columns)
    _read_again([check for check in checks if check.needs_second_pass], training)
    kind = summary.kind
    facts = Facts(
        training=summary,
        kind=kind,
        labels=summary.labels.counts if kind == "classification" else {},
        validation=held_out,
        has_style=profile == "completion",
        token_counts=in_tokens,
        validation_token_counts=held_out_tokens,
        wrong_lines=wrong.count,
        has_empty_validation=bool(validation) and not len(held_out.rows),
    )
    remarks = _file_remarks(training, wrong, profile, summary.is_chat)
    for check in checks:
        # without a row, there is nothing to say about the form of rows
        if check.applies_to == "any" or (facts.examples and check.applies(is_chat=summary.is_chat)):
            remarks += check.remarks(facts)
    lengths = in_tokens.lengths if in_tokens else in_characters
    refused = [
        finding
        for counts in (in_tokens, held_out_tokens)
        for _, finding in (counts.refused if counts else ())
    ]
    return Inspection(
        kind=kind,
        examples=facts.examples,
        validation_examples=len(held_out.rows),
        wrong=wrong.count,
        refused=len(refused),
        findings=[*wrong.first, *refused][:FINDINGS_KEPT],
        remarks=sorted(remarks, key=lambda remark: LEVELS.index(remark.level)),
        classes=sorted(facts.labels.items(), key=lambda pair: -pair[1]) or None,
        lengths=lengths.histogram,
        length_unit="tokens" if in_tokens else "characters",
        characters=in_characters.total,
        tokens=in_tokens.lengths.total if in_tokens else None,
        rows=facts.rows,
        separator=_common_ending(checks, "prompt"),
        stop=_common_ending(checks, "completion") if kind == "conditional generation" else None,
    )


def _token_counts(
    tokenizer: Tokenizing | None, model: str, context: int | None, files: Sequence[str]
) -> TokenCounts | None:
    if tokenizer is None:
        return None
    from finetune_data.tokenize.acceptance import Acceptance

    return TokenCounts(Acceptance(tokenizer, model, context), files)


def _common_ending(checks: Sequence[Check], side: Field) -> str | None:
    found = (check for check in checks if isinstance(check, Ending) and check.field == side)
    return next((check.common for check in found), "") or None


class _FileReader:
    """Reads several files as columns, with ordinals over all of them, and reports progress."""

    def __init__(self, progress: ProgressCallback | None, readers: Sequence[Reader]) -> None:
        self._progress = progress
        self._total = sum(reader.source.size for reader in readers)
        self._has_several = len(readers) > 1
        self._before = 0  # bytes of the files that are done

    def names(self, readers: Sequence[Reader]) -> list[str]:
        """The names of files for findings; none if there is only one file."""
        if not self._has_several:
            return []
        return [PurePath(reader.source.name).name for reader in readers]

    def columns(
        self, readers: Sequence[Reader], wrong: _WrongLines, rows: Fingerprints
    ) -> Iterator[Columns]:
        shape = None
        for index, reader in enumerate(readers):
            name = PurePath(reader.source.name).name
            rows.begin(name)
            for batch in reader.batches():
                if batch.findings:
                    has_name = self._has_several
                    wrong.add([it.in_file(name) if has_name else it for it in batch.findings])
                examples = batch.examples
                if examples and shape not in {None, type(examples[0])}:
                    wrong.add([_mixed_shapes(name, Columns(examples, 0, index))])
                    break
                if examples:
                    shape = type(examples[0])
                    yield Columns(examples, len(rows), index)
                if self._progress is not None:
                    self._progress(self._before + batch.position, self._total)
            self._before += reader.source.size


def _mixed_shapes(name: str, columns: Columns) -> Finding:
    kinds = ("prompts and completions", "chats")
    here, before = reversed(kinds) if columns.is_chat else kinds
    message = f"{name} has {here}, but the files before it have {before}: prepare them separately"
    return Finding("mixed-shapes", message, fatal=True)


def _read_again(checks: Sequence[Check], training: Sequence[Reader]) -> None:
    if not checks:
        return
    for check in checks:
        check.begin_second_pass()
    for reader in training:
        for batch in reader.batches():
            columns = Columns(batch.examples, 0, 0)
            for check in checks:
                check.observe_again(columns)


def _file_remarks(
    readers: Sequence[Reader], wrong: _WrongLines, profile: Profile, is_chat: bool
) -> list[Remark]:
    remarks = []
    if wrong.count:
        remarks.append(_wrong_lines_remark(wrong))
    for reader in readers:
        ignored = reader.description.ignored
        if ignored:
            names = ", ".join(shown(name) for name in ignored[:5])
            more = ", …" if len(ignored) > 5 else ""
            remarks.append(Remark("other-columns", "info", f"ignored columns: {names}{more}"))
    if profile == "chat" and not is_chat:
        message = "the data has prompts and completions, not chats: --profile chat has no effect"
        remarks.append(Remark("profile", "warning", message))
    return remarks


def _wrong_lines_remark(wrong: _WrongLines) -> Remark:
    if wrong.fatal is not None:
        message = str(wrong.fatal)
        if wrong.fatal.code not in READABLE:
            message = f"the file cannot be read: {message}"
        return Remark("wrong-lines", "error", message, wrong.count)
    lines = "wrong line" if wrong.count == 1 else f"{wrong.count:,} wrong lines"
    return Remark(
        "wrong-lines",
        "error",
        f"{counted(wrong.count, 'line')} cannot be used; the first: {wrong.first[0]}",
        wrong.count,
        fix=LeaveOutWrong("wrong-lines", f"Remove the {lines}"),
    )
