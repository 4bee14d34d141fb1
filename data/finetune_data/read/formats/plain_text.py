"""Plain text: each line is a completion, except empty lines at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding
from finetune_data.read.formats.lines import read_lines

Record = tuple[int, JsonObject | Finding]
COLUMN = "text"


def read_text(blocks: Iterable[bytes | Finding], limits: DataLimits) -> Iterator[Record]:
    """A record per line."""
    for line in read_lines(blocks, limits):
        if isinstance(line, Finding):
            yield line.line or 1, line
        else:
            number, data = line
            yield number, {COLUMN: data.decode("utf-8", "surrogateescape")}
