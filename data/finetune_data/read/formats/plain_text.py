"""Plain text: each line is a completion; trailing empty lines are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from finetune_api.limits import DataLimits
from finetune_data.read.findings import Finding
from finetune_data.read.formats.json_text import Object
from finetune_data.read.formats.lines import read_lines

Record = tuple[int, Object | Finding]
COLUMN = "text"


def read_text(blocks: Iterable[bytes | Finding], limits: DataLimits) -> Iterator[Record]:
    for line in read_lines(blocks, limits):
        if isinstance(line, Finding):
            yield line.line or 1, line
        else:
            text = line.data.decode("utf-8", "surrogateescape")
            yield line.number, {COLUMN: text}
