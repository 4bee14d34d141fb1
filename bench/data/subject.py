"""Measured in a new process: all checks of `prepare-data` except token counts."""

import sys
import time
from pathlib import Path

from bench.machine import report
from finetune_api.limits import DataLimits
from finetune_data.lint.inspection import inspect
from finetune_data.read.reader import Reader, ReadOptions
from finetune_data.read.sources import LocalSource


def main(path: str) -> None:
    begin = time.perf_counter()
    options = ReadOptions(limits=DataLimits(max_file_bytes=10**10))
    inspection = inspect([Reader(LocalSource(Path(path)), options)], profile="completion")
    seconds = time.perf_counter() - begin
    report(seconds=seconds, rows=inspection.examples, remarks=len(inspection.remarks))


if __name__ == "__main__":
    main(sys.argv[1])
