"""Reads the questions of a data file. Each row must be one that a fine-tune accepts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from finetune_api.names import EXIT_USER
from finetune_cli.artifacts.base_models import storage_for
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune_data.read.examples import Example
    from finetune_data.read.reader import ReadOptions
    from finetune_evaluation.rows import Question

LARGEST_SCHEMA = 2**20  # bytes


@dataclass
class Questions:
    """The questions of the files. left_out: how many rows have no answer to compare, by reason."""

    found: list[Question] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_questions(file: str, options: ReadOptions, limit: int | None, folder: Path) -> Questions:
    """Read a file, a folder, a pattern, or an S3 address.

    limit: of questions. folder: for downloads. Raises CommandError for a row that a fine-tune would
    refuse, and for files without a question.
    """
    from finetune_evaluation.rows import UngradableError, question_of

    made = Questions()

    def questions() -> Iterator[Question]:
        for example in _examples(file, options, folder):
            try:
                yield question_of(example)
            except UngradableError as error:
                made.left_out[str(error)] += 1

    made.found = list(islice(questions(), limit))
    if not made.found:
        reasons = "; ".join(made.left_out)
        raise CommandError(
            f"{file} has no row with an answer to compare{f': {reasons}' if reasons else ''}",
            code=EXIT_USER,
        )
    return made


def _examples(file: str, options: ReadOptions, folder: Path) -> Iterator[Example]:
    from finetune_data.read.reader import Reader
    from finetune_data.read.sources import find_sources

    for source in find_sources([file], storage_for([file]), folder):
        for batch in Reader(source, options).batches():
            if batch.findings:
                name = PurePath(source.name).name
                raise CommandError(
                    f"{batch.findings[0].in_file(name)}",
                    f"finetune prepare-data {file}",
                    code=EXIT_USER,
                )
            yield from batch.examples


def read_schema(path: Path | None) -> Any:
    """The JSON Schema in a file; None without one. Raises CommandError."""
    if path is None:
        return None
    from finetune_api.wire import parse_json

    with path.open("rb") as file:
        data = file.read(LARGEST_SCHEMA + 1)
    if len(data) > LARGEST_SCHEMA:
        raise CommandError(f"{path} has more than {LARGEST_SCHEMA:,} bytes", code=EXIT_USAGE)
    try:
        return parse_json(data)
    except ValueError as error:
        raise CommandError(f"{path} is not JSON", code=EXIT_USAGE) from error


def write_answers(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line. The file appears when it is complete."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.replace(path)
