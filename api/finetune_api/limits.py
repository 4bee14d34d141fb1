"""What a data file may be. Apart from the tasks, since a reader needs nothing else of them."""

from finetune_api.wire import Stored


class DataLimits(Stored):
    """What a file may be before it is refused."""

    max_file_bytes: int = 157_286_400  # 150 MiB, after decompression too
    max_line_bytes: int = 1_048_576
    max_nesting: int = 64
