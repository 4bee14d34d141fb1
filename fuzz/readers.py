"""`python -m fuzz.readers`: any bytes, as any format, through the readers (atheris, libFuzzer).

A crash leaves its input in fuzz/crashes. To run only that input, pass the path of the file.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import atheris

FOLDER = Path(__file__).parent
NAMES = (
    *("a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.xlsx", "a.parquet", "a"),
    *("a.jsonl.gz", "a.csv.zst"),
)
LONGEST = 20_000  # bytes in an input
RSS_MB = 2048

with atheris.instrument_imports(include=["finetune_data"]):
    from finetune_api.limits import DataLimits
    from finetune_data.read.examples import Batch, Conversation, Row
    from finetune_data.read.findings import Finding
    from finetune_data.read.reader import Reader, ReadOptions
    from finetune_data.read.sources import LocalSource
    from finetune_data.rewrite.rewriting import to_line

LIMITS = DataLimits(max_file_bytes=200_000, max_line_bytes=5_000, max_nesting=8)


class Target:
    """Reads one input: the first byte selects the file name, and the rest is the file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        path = self._folder / NAMES[data[0] % len(NAMES)]
        path.write_bytes(data[1:])
        for item in self._read(path):
            if isinstance(item, Finding):
                assert item.line is None or item.line >= 1, item
                assert str(item).isprintable(), item
            else:
                self._check_example(item)

    def _read(self, path: Path) -> Iterator[Row | Conversation | Finding]:
        for batch in Reader(LocalSource(path), ReadOptions(limits=LIMITS)).batches():
            assert isinstance(batch, Batch)
            yield from batch.examples
            yield from batch.findings

    def _check_example(self, example: Row | Conversation) -> None:
        """Assert that an accepted example can be written, and reads back as the same example."""
        line = to_line(example)
        assert b"\\u0000" not in line
        path = self._folder / "again.jsonl"
        path.write_bytes(line)
        if len(line) > LIMITS.max_line_bytes:
            return
        [again] = self._read(path)
        if isinstance(example, Row):
            assert again == Row(1, example.prompt, example.completion), again
        else:
            assert isinstance(again, Conversation), again
            assert (again.messages, again.tools) == (example.messages, example.tools)


def seeds() -> Iterator[bytes]:
    """Yield small files of every format."""
    from openpyxl import Workbook
    from pyarrow import parquet, table
    from zstandard import ZstdCompressor

    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "ü\n\t", "completion": " c"}]
    chat = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "content": "a", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    lines = "\n".join(map(json.dumps, rows)).encode()
    csv = b'prompt,completion\na,b\n"c\n""d",e\n'
    book = Workbook()
    assert book.active is not None
    for row in (("prompt", "completion"), ("a", 1), ("b", "c")):
        book.active.append(row)
    xlsx, columns = io.BytesIO(), io.BytesIO()
    book.save(xlsx)
    parquet.write_table(table({"prompt": ["a"], "completion": ["b"]}), columns)
    share = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1e9}}', "weight": 1}
    thought = {"role": "assistant", "content": "a", "thinking": [{"type": "text", "text": "b"}]}
    styles = [
        {"conversations": [call, call], "tools": '[{"name": "f", "parameters": {"x": null}}]'},
        {"messages": [thought], "system": "s", "tools": [{"name": "f"}]},
    ]
    files = {
        "a.jsonl": [lines, *(json.dumps(one).encode() for one in (chat, share, *styles))],
        "a.json": [json.dumps(rows, indent=1).encode(), json.dumps({"data": rows}).encode()],
        "a.csv": [
            csv,
            b"\xef\xbb\xbfsep=;\n" + csv.replace(b",", b";"),
            csv.replace(b"\n", b"\r"),
            csv.decode().encode("utf-16-be"),
        ],
        "a.tsv": [csv.replace(b",", b"\t")],
        "a.txt": [b"one\r\ntwo\n"],
        "a.xlsx": [xlsx.getvalue()],
        "a.parquet": [columns.getvalue()],
        "a.jsonl.gz": [gzip.compress(lines)],
        "a.csv.zst": [ZstdCompressor().compress(csv)],
    }
    for name, contents in files.items():
        for content in contents:
            yield bytes([NAMES.index(name)]) + content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("crash", nargs="*", help="inputs of earlier crashes; run only these")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        corpus, work = Path(name) / "corpus", Path(name) / "work"
        corpus.mkdir()
        work.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / str(number)).write_bytes(seed)
        crashes = FOLDER / "crashes"
        crashes.mkdir(exist_ok=True)
        chosen = options.crash or [
            f"-max_total_time={options.seconds}",
            f"-max_len={LONGEST}",
            "-timeout=30",
            "-print_final_stats=1",
            str(corpus),
        ]
        arguments = [
            sys.argv[0],
            f"-artifact_prefix={crashes}/",
            f"-rss_limit_mb={RSS_MB}",
            *chosen,
        ]
        atheris.Setup(arguments, Target(work))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
