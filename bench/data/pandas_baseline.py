"""Measured in a new process: the checks of OpenAI's data preparation tool, on pandas.

This is original code for the known rules of that tool: columns of texts, and a pass over a column
for each rule.
"""

import os
import sys
import time

import pandas

from bench.machine import report

SEPARATORS = (" ->", "\n\n###\n\n", "\n\n===\n\n", "\n\n---\n\n", "\n\n===>\n\n", "\n\n--->\n\n")
ENDINGS = ("\n", ".", " END", "***", "+++", "&&&", "$$$", "@@@", "%%%")


def main(path: str) -> None:
    begin = time.perf_counter()
    rows = pandas.read_json(path, lines=True, dtype=str).fillna("")
    read = time.perf_counter() - begin
    remarks = 0
    remarks += len(rows) < 100
    remarks += (
        rows["completion"].apply(lambda text: text == "") | rows["completion"].isnull()
    ).any()
    remarks += len(rows["completion"].unique()) < len(rows) / 3
    remarks += rows.duplicated(subset=["prompt", "completion"]).any()
    length = rows.apply(lambda row: len(row["prompt"]) + len(row["completion"]), axis=1)
    remarks += (length > 10_000).any()
    for column in ("prompt", "completion"):
        upper = rows[column].apply(lambda text: sum(map(str.isupper, text))).sum()
        lower = rows[column].apply(lambda text: sum(map(str.islower, text))).sum()
        remarks += upper * 2 > lower
    for column, candidates in (("prompt", SEPARATORS), ("completion", ENDINGS)):
        suffix = _common(rows[column], is_suffix=True)
        if suffix:
            inside = rows[column].str[: -len(suffix)].str.contains(suffix, regex=False)
            remarks += inside.any()
        else:
            for candidate in candidates:
                if not rows[column].str.contains(candidate, regex=False).any():
                    break
        remarks += bool(_common(rows[column], is_suffix=False))
    remarks += (rows["completion"].str[:1] != " ").any()
    report(seconds=time.perf_counter() - begin, read=read, rows=len(rows), remarks=int(remarks))


def _common(texts: "pandas.Series[str]", *, is_suffix: bool) -> str:
    """Return the longest common prefix or suffix, one character at a time."""
    found = ""
    first = texts.iloc[0]
    while len(found) < len(first):
        size = len(found) + 1
        longer = first[-size:] if is_suffix else first[:size]
        same = texts.str.endswith(longer) if is_suffix else texts.str.startswith(longer)
        if not same.all():
            break
        found = longer
    return found


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1])
