"""The second pass over the files: examples with the accepted fixes, as JSONL ready for training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from finetune_data.lint.columns import Columns
from finetune_data.lint.fingerprints import Fingerprints
from finetune_data.lint.fixes import Fix, Mask, TextFix, apply_all
from finetune_data.read.examples import Example, Row
from finetune_data.read.findings import Finding
from finetune_data.read.reader import Reader
from finetune_data.rewrite.train_validation_split import Split
from finetune_storage.progress import ProgressCallback

if TYPE_CHECKING:
    from finetune_data.tokenize.acceptance import Acceptance

ENCODED_AT_ONCE = 1_000  # examples


@dataclass(frozen=True)
class Written:
    """A file that was written."""

    path: Path
    examples: int


def kept_by(fixes: Sequence[Fix], examples: int) -> Mask:
    """A mask of the examples that the fixes keep."""
    import numpy as np

    kept = np.ones(examples, bool)
    for fix in fixes:
        mask = getattr(fix, "mask", None)
        if mask is not None:
            kept &= ~mask
    return kept


def rows_after(readers: Sequence[Reader], fixes: Sequence[Fix], rows: Fingerprints) -> Fingerprints:
    """`rows` as the fixes change them. None is left out, so that ordinals stay valid.

    The split needs these: two spellings that become one class, or two prompts that become one,
    must count as one. A text that is added to prompts merges none of them, so it is left out.
    """
    ordered = sorted(
        (fix for fix in fixes if isinstance(fix, TextFix) and (fix.loses or fix.is_of_completions)),
        key=lambda fix: fix.order,
    )
    if not ordered:
        return rows
    changed = Fingerprints()
    changed.begin("")
    for reader in readers:
        for batch in reader.batches():
            first = len(changed)
            found = (apply_all(ordered, first + n, one) for n, one in enumerate(batch.examples))
            changed.observe(Columns([one for one in found if one is not None], first, 0))
    assert len(changed) == len(rows)
    return changed


def examples_after(
    readers: Sequence[Reader], fixes: Sequence[Fix]
) -> Iterator[tuple[Reader, Example]]:
    """The examples that `rewrite` would write, each with the reader of its file."""
    ordered = sorted(fixes, key=lambda fix: fix.order)
    ordinal = 0
    for reader in readers:
        for batch in reader.batches():
            for example in batch.examples:
                changed = apply_all(ordered, ordinal, example)
                ordinal += 1
                if changed is not None:
                    yield reader, changed


def refusals_after(
    readers: Sequence[Reader], fixes: Sequence[Fix], acceptance: Acceptance
) -> Iterator[tuple[Reader, Finding]]:
    """The examples that `rewrite` would write, but the trainer would refuse.

    A text that a fix adds can make an example too long.
    """
    examples = examples_after(readers, fixes)
    while batch := [*islice(examples, ENCODED_AT_ONCE)]:
        encoded = acceptance.tokenizer.encode([example for _, example in batch])
        for (reader, example), found in zip(batch, encoded, strict=True):
            finding = acceptance.refusal(example, found)
            if finding is not None:
                yield reader, finding


def rewrite(
    readers: Sequence[Reader],
    fixes: Sequence[Fix],
    folder: Path,
    stem: str,
    *,
    ending: str = "",
    split: Split | None = None,
    progress: ProgressCallback | None = None,
) -> list[Written]:
    """Write `<stem>_prepared<ending>.jsonl`, or `..._train` and `..._valid`, into `folder`.

    No file is replaced: if a name is taken, the new file gets a number. No partial file stays after
    an error. progress: gets the bytes read and the total.
    """
    ordered = sorted(fixes, key=lambda fix: fix.order)
    endings = ["_train", "_valid"] if split is not None else [ending]
    total = sum(reader.source.size for reader in readers)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        names = free_names(folder, [f"{stem}_prepared{ending}" for ending in endings])
        files = [stack.enter_context(_Partial(path)) for path in names]
        for ordinal, example, done in _examples(readers):
            changed = apply_all(ordered, ordinal, example)
            if changed is not None:
                side = int(split.is_validation[ordinal]) if split is not None else 0
                files[side].write(changed)
            if progress is not None and ordinal % 1000 == 0:
                progress(done, total)
        for file in files:
            file.finish()
    return [Written(file.path, file.examples) for file in files]


def _examples(readers: Sequence[Reader]) -> Iterator[tuple[int, Example, int]]:
    ordinal = before = 0
    for reader in readers:
        for batch in reader.batches():
            for example in batch.examples:
                yield ordinal, example, before + batch.position
                ordinal += 1
        before += reader.source.size


def to_line(example: Example) -> bytes:
    """Canonical JSON: UTF-8, no ASCII escapes, a line feed at the end."""
    from orjson import dumps

    if isinstance(example, Row):
        return dumps({"prompt": example.prompt, "completion": example.completion}) + b"\n"
    value: dict[str, object] = {"messages": example.messages}
    if example.tools:
        value["tools"] = example.tools
    return dumps(value) + b"\n"


def free_names(folder: Path, stems: Sequence[str]) -> list[Path]:
    """`stem.jsonl` of each; if one of them is taken, all get the same number."""
    number = 0
    while True:
        suffix = f"-{number}" if number else ""
        paths = [folder / f"{stem}{suffix}.jsonl" for stem in stems]
        if not any(path.exists() for path in paths):
            return paths
        number += 1


class _Partial:
    """A file with a temporary name until it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.examples = 0
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._partial.open("wb")
        return self

    def write(self, example: Example) -> None:
        assert self._file is not None
        self._file.write(to_line(example))
        self.examples += 1

    def finish(self) -> None:
        """Give the file its name. A link fails if a file of that name exists by now."""
        assert self._file is not None
        self._file.close()
        try:
            os.link(self._partial, self.path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            self._partial.rename(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._partial.unlink(missing_ok=True)
