"""Detects the format of a file by its first bytes and its name."""

from __future__ import annotations

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".text": "txt",
    ".md": "txt",
    ".parquet": "parquet",
}
NAMES = {
    "csv": "CSV",
    "tsv": "TSV",
    "xlsx": "XLSX",
    "json": "JSON",
    "jsonl": "JSONL",
    "txt": "text",
    "parquet": "Parquet",
}
UNKNOWN = (
    "a file of an unknown format: name it .csv, .tsv, .txt, .json, .jsonl, .xlsx, or .parquet, or "
    "use --format"
)


def detect_text_format(first: bytes, by_name: str | None) -> str | None:
    """The format of a text file; None if it is not known.

    first: the first bytes, decompressed. They decide if they are JSON, unless the name says that
    the file is a table or a text. by_name: the format that the file's name stands for. A text is a
    table if its first line is a header, because Excel names its export in Unicode `.txt`.
    """
    text = first.lstrip()
    if by_name == "txt" and (table := _table_format(text)) is not None:
        return table
    if by_name in {None, "json", "jsonl"} and text[:1] in {b"[", b"{"}:
        if text.startswith(b"["):
            return "json"
        line, _, rest = text.partition(b"\n")
        if by_name == "json" and not rest.strip():
            return "json"  # one object on one line, which can hold the rows
        # one object per line, or an object that continues over several lines
        return "jsonl" if line.rstrip().endswith(b"}") or not rest else "json"
    return by_name


def _table_format(text: bytes) -> str | None:
    header = text.partition(b"\n")[0].decode("utf-8", "replace").lower()
    for delimiter, kind in (("\t", "tsv"), (",", "csv"), (";", "csv")):
        if {"prompt", "completion"} <= {name.strip(' \r"') for name in header.split(delimiter)}:
            return kind
    return None
