"""From several tokenized training files to the examples of one epoch, with repeats, on disk.

The trainer reads one split, and reads every example of it once in an epoch. So repeats are written
into the arrays, each next to its example, and the trainer needs neither files nor weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune_api.training_files import MOST_REPEATS
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.pod_log import log
from finetune_data.prepare.inputs import DataFile
from finetune_data.prepare.mixture import (
    MOST_PASSES,
    epoch_examples,
    find_excess,
    most_repeats,
    occurrences,
)
from finetune_data.prepare.tokenize_file import PreparedSplit
from finetune_data.read.findings import counted
from finetune_data.tokenize.array_files import SplitFiles
from finetune_data.tokenize.dataset import (
    TRAIN,
    VALIDATION,
    FileShare,
    LearnedEnd,
    Offsets,
    SplitCounts,
    TokenSplit,
)

BLOCK_ROWS = 10_000
BLOCK_TOKENS = 1_000_000  # with 8 bytes for each token


class WrittenSplits(NamedTuple):
    """The splits of a dataset in its folder."""

    splits: dict[str, SplitCounts]
    paths: list[str]  # of the arrays
    shares: list[FileShare] | None  # of the training files; None: a single file


def write_splits(
    files: Sequence[DataFile],
    parts: Mapping[str, PreparedSplit],
    weights: Sequence[float] | None,
    source: Path,
    target: Path,
) -> WrittenSplits:
    """Write the training split, unless it is a single file, whose arrays are in `target` already.

    parts: the tokenized files, by their names. source: the folder with the arrays of several
    training files. Raises DataError if a file is too small for its weight.
    """
    splits = {name: part.counts for name, part in parts.items() if name in {TRAIN, VALIDATION}}
    paths = [path for name in splits for path in parts[name].paths]
    if TRAIN in splits:
        return WrittenSplits(splits, paths, None)
    training = [file for file in files if file.split == TRAIN]
    shares = share_epoch(training, [parts[file.name] for file in training], weights)
    for file, share in zip(training, shares, strict=True):
        log(
            f"an epoch has {counted(share.epoch_examples, 'example')} of {file.param}, which has "
            f"{share.examples:,}"
        )
    counts, written = write_epoch(shares, source, target)
    return WrittenSplits({TRAIN: counts, **splits}, [*written, *paths], shares)


def training_parts(parts: Mapping[str, PreparedSplit]) -> list[PreparedSplit]:
    """The training files. The summary and separator of the last one are those of all of them."""
    return [part for name, part in parts.items() if name != VALIDATION]


def merged_ends(parts: Sequence[PreparedSplit]) -> list[LearnedEnd]:
    """What ends the answers of all files, without repeats, the most frequent first."""
    found: dict[tuple[int, str], LearnedEnd] = {}
    for end in (end for part in parts for end in part.ends):
        known = found.get((end.token, end.how))
        answers = end.answers + (known.answers if known else 0)
        found[end.token, end.how] = end.replace(answers=answers)
    return sorted(found.values(), key=lambda end: -end.answers)


def share_epoch(
    files: Sequence[DataFile], parts: Sequence[PreparedSplit], weights: Sequence[float] | None
) -> list[FileShare]:
    """Each file's part of an epoch.

    parts: the tokenized files. Raises DataError if a file is too small for its weight.
    """
    examples = [part.counts.examples for part in parts]
    excess = find_excess(examples, weights)
    if excess is not None:
        file = files[excess.file]
        raise DataError(
            failures.excessive_weight(
                f"{file.param}.weight",
                str(file.uri),
                examples=counted(examples[excess.file], "example"),
                repeats=f"{excess.repeats:,}",
                most=MOST_REPEATS,
                weights=_listed(excess.weights) if excess.weights else None,
            )
        )
    return [
        FileShare(
            input=file.name,
            weight=weights[index] if weights else None,
            lines=parts[index].counts.lines,
            skipped_lines=parts[index].counts.skipped_lines,
            examples=examples[index],
            epoch_examples=in_epoch,
        )
        for index, (file, in_epoch) in enumerate(
            zip(files, epoch_examples(examples, weights), strict=True)
        )
    ]


def write_epoch(
    shares: Sequence[FileShare], source: Path, target: Path
) -> tuple[SplitCounts, list[str]]:
    """Write the training split from the files' own arrays: its counts, and its paths in `target`.

    source: the folder with the arrays of each file, under the name of its input.
    """
    with SplitFiles(target, TRAIN) as files:
        for share in shares:
            split = TokenSplit.open(source, share.input)
            for rows in _blocks(split.offsets, share):
                _append(files, split, rows)
            for path in source.glob(f"{share.input}.*.npy"):  # so that it is on the disk once
                path.unlink()
    counts = SplitCounts(
        examples=files.examples,
        tokens=files.tokens,
        skipped_lines=sum(share.skipped_lines for share in shares),
        lines=sum(share.lines for share in shares),
        longest_example=files.longest,
        prompt_tokens=files.prompt_tokens,
    )
    return counts, files.paths


def repeat_advice(shares: Sequence[FileShare], n_epochs: int) -> list[str]:
    """Sentences about files whose examples the model sees so often that it memorizes them."""
    advice = []
    for index, share in enumerate(shares):
        repeats = most_repeats(share.examples, share.epoch_examples)
        if repeats > 1 and repeats * n_epochs > MOST_PASSES:
            advice.append(
                f"An epoch has each example of trainingFiles[{index}] "
                f"({counted(share.examples, 'example')}) up to {repeats} times, so the model sees "
                f"it up to {repeats * n_epochs} times in all epochs. More than {MOST_PASSES} times "
                "can lead to overfitting: use a smaller weight, fewer epochs, or more examples."
            )
    return advice


def _listed(weights: Sequence[float]) -> str:
    """`3, 0.09, and 2`."""
    texts = [f"{weight:.10g}" for weight in weights]
    if len(texts) == 2:
        return " and ".join(texts)
    return f"{', '.join(texts[:-1])}, and {texts[-1]}"


def _blocks(offsets: Offsets, share: FileShare) -> Iterator[Offsets]:
    """The rows of a file in the order of the split, as often as they occur, in small blocks."""
    for start in range(0, share.examples, BLOCK_ROWS):
        stop = min(share.examples, start + BLOCK_ROWS)
        times = occurrences(share.examples, share.epoch_examples, start, stop)
        rows = np.repeat(np.arange(start, stop, dtype=np.int64), times)
        ends = np.cumsum(np.diff(offsets[start : stop + 1])[rows - start])
        first = 0
        while first < len(rows):
            before = int(ends[first - 1]) if first else 0
            last = int(np.searchsorted(ends, before + BLOCK_TOKENS, side="right"))
            last = max(first + 1, last)
            yield rows[first:last]
            first = last


def _append(files: SplitFiles, split: TokenSplit, rows: Offsets) -> None:
    starts = split.offsets[rows]
    lengths = split.offsets[rows + 1] - starts
    # the position of each token: that of its example, plus its place in the example
    shifts = starts - (np.cumsum(lengths) - lengths)
    positions = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(shifts, lengths)
    files.append_arrays(split.tokens[positions], split.roles[positions], lengths)
