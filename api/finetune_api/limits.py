"""The limits of data files, apart from the tasks so that readers do not import these."""

from finetune_api.wire import Stored


class DataLimits(Stored):
    """The limits of a data file. A file beyond them is refused."""

    max_file_bytes: int = 157_286_400  # 150 MiB, also after decompression
    max_line_bytes: int = 1_048_576
    max_nesting: int = 64
