"""All checks over all files, in one pass where that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from finetune_data.lint import content
from finetune_data.lint.chats import Turns
from finetune_data.lint.columns import Columns
from finetune_data.lint.content import EmptyPrompts, Labels
from finetune_data.lint.facts import Facts, Kind, Profile, tell_kind
from finetune_data.lint.fingerprints import Fingerprints
from finetune_data.lint.fixes import Fix, LeaveOutWrong
from finetune_data.lint.lengths import Lengths
from finetune_data.lint.remarks import LEVELS, Remark
from finetune_data.lint.style import Beginning, Case, Ending, LeadingSpace
from finetune_data.read.findings import Finding, counted, shown
from finetune_data.read.reader import Reader

if TYPE_CHECKING:
    from finetune_data.tokenize.tokenizer import ExampleTokenizer

FINDINGS_KEPT = 100
READABLE = {"missing-key", "mixed-shapes"}  # fatal, of files that were read and are not fit
ProgressCallback = Callable[[int, int], None]


@dataclass
class Inspection:
    """What was found."""

    kind: Kind
    examples: int
    validation_examples: int
    wrong: int  # lines that are no example
    findings: list[Finding]  # the first of them
    remarks: list[Remark]  # the gravest first
    classes: list[tuple[str, int]] | None  # the most frequent first
    lengths: list[tuple[str, int]]
    length_unit: str  # "tokens" or "characters"
    characters: int
    tokens: int | None
    rows: Fingerprints  # of the training files
    separator: str | None = None
    stop: str | None = None

    @property
    def fixes(self) -> list[Fix]:
        """In the order in which they are applied."""
        found = [remark.fix for remark in self.remarks if remark.fix is not None]
        return sorted(found, key=lambda fix: fix.order)


@dataclass
class _Wrong:
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
    tokenizer: ExampleTokenizer | None = None,
    context: int | None = None,
    progress: ProgressCallback | None = None,
) -> Inspection:
    """Look at everything once, at the training files twice where an ending needs it.

    context: tokens an example may have. progress: bytes done, bytes in all. Raises StorageError
    or DataError where a file can't be reached.
    """
    total = sum(reader.source.size for reader in (*training, *validation))
    walk = _Walk(progress, total)
    wrong = _Wrong()
    rows, held_out = Fingerprints(), Fingerprints()
    labels, held_labels, empty, turns = Labels(), Labels(), EmptyPrompts(), Turns()
    endings = [Ending("prompt"), Ending("completion")]
    others: list[Beginning | Case] = [
        *(Beginning("prompt"), Beginning("completion")),
        *(Case("prompt"), Case("completion")),
    ]
    space = LeadingSpace()
    in_characters, in_tokens = Lengths(None), Lengths(context)
    is_chat = False
    for columns in walk.columns(training, wrong, rows):
        is_chat = is_chat or columns.is_chat
        rows.look(columns)
        in_characters.look(columns, columns.lengths)
        if tokenizer is not None:
            in_tokens.look(columns, tokenizer.lengths(columns.examples))
        if columns.is_chat:
            turns.look(columns)
            continue
        labels.look(columns)
        empty.look(columns)
        space.look(columns)
        for check in (*endings, *others):
            check.look(columns)
    for columns in walk.columns(validation, wrong, held_out):
        held_out.look(columns)
        held_labels.look(columns)
    if any(ending.wants_another_look for ending in endings):
        _look_again([ending for ending in endings if ending.wants_another_look], training)
    prompts = len(rows) - empty.count
    kind = tell_kind(rows, prompts, rows.distinct_completions(), is_chat=is_chat)
    facts = Facts(
        kind=kind,
        examples=len(rows),
        rows=rows,
        labels=labels.counts if kind == "classification" else {},
        has_style=profile == "completion",
        context=context,
    )
    remarks = [
        *_of_files(training, wrong, profile, is_chat),
        *(() if wrong.count and not len(rows) else content.amount(facts)),
        *in_tokens.remarks(facts),
        *content.duplicates(facts),
        *content.conflicts(facts),
        *(content.overlap(facts, held_out) if len(held_out) else ()),
        *content.unseen_classes(facts, held_labels.counts, held_out),
    ]
    if is_chat:
        remarks += turns.remarks(facts)
    elif len(rows):
        remarks += empty.remarks(facts)
        for rule in (*endings, *others, space):
            remarks += rule.remarks(facts)
        remarks += content.class_balance(facts) + content.base_model(facts)
    has_tokens = tokenizer is not None
    return Inspection(
        kind=kind,
        examples=len(rows),
        validation_examples=len(held_out),
        wrong=wrong.count,
        findings=wrong.first,
        remarks=sorted(remarks, key=lambda remark: LEVELS.index(remark.level)),
        classes=sorted(facts.labels.items(), key=lambda pair: -pair[1]) or None,
        lengths=(in_tokens if has_tokens else in_characters).histogram,
        length_unit="tokens" if has_tokens else "characters",
        characters=in_characters.total,
        tokens=in_tokens.total if has_tokens else None,
        rows=rows,
        separator=endings[0].common or None,
        stop=(endings[1].common or None) if kind == "conditional generation" else None,
    )


class _Walk:
    """Batches of several files as columns, with ordinals over all of them, and the progress."""

    def __init__(self, progress: ProgressCallback | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._before = 0  # bytes of the files that are done

    def columns(
        self, readers: Sequence[Reader], wrong: _Wrong, rows: Fingerprints
    ) -> Iterator[Columns]:
        shape = None
        for index, reader in enumerate(readers):
            name = PurePath(reader.source.name).name
            rows.begin(name)
            for batch in reader.batches():
                wrong.add(batch.findings)
                examples = batch.examples
                if examples and shape not in {None, type(examples[0])}:
                    what = "chats, while the files before have prompts and completions"
                    message = f"{name} has {what}: prepare them apart"
                    wrong.add([Finding("mixed-shapes", message, fatal=True)])
                    break
                if examples:
                    shape = type(examples[0])
                    yield Columns(examples, len(rows), index)
                if self._progress is not None:
                    self._progress(self._before + batch.position, self._total)
            self._before += reader.source.size


def _look_again(endings: Sequence[Ending], training: Sequence[Reader]) -> None:
    for ending in endings:
        ending.begin_another_look()
    for reader in training:
        for batch in reader.batches():
            columns = Columns(batch.examples, 0, 0)
            for ending in endings:
                ending.look(columns, again=True)


def _of_files(
    readers: Sequence[Reader], wrong: _Wrong, profile: Profile, is_chat: bool
) -> list[Remark]:
    remarks = []
    if wrong.count:
        remarks.append(_of_wrong_lines(wrong))
    for reader in readers:
        ignored = reader.description.ignored
        if ignored:
            names = ", ".join(shown(name) for name in ignored[:5])
            more = ", …" if len(ignored) > 5 else ""
            message = f"columns that are not read: {names}{more}"
            remarks.append(Remark("other-columns", "info", message))
    if profile == "chat" and not is_chat:
        message = "these are prompts and completions, not chats: --profile chat changes nothing"
        remarks.append(Remark("profile", "warning", message))
    return remarks


def _of_wrong_lines(wrong: _Wrong) -> Remark:
    if wrong.fatal is not None:
        message = str(wrong.fatal)
        if wrong.fatal.code not in READABLE:
            message = f"the file can't be read: {message}"
        return Remark("wrong-lines", "error", message, wrong.count)
    return Remark(
        "wrong-lines",
        "error",
        f"{counted(wrong.count, 'line')} can't be used, the first: {wrong.first[0]}",
        wrong.count,
        fix=LeaveOutWrong(
            "wrong-lines",
            "Leave out the wrong line"
            if wrong.count == 1
            else f"Leave out the {wrong.count:,} wrong lines",
        ),
    )
