"""`python -m finetune_trainer.shard_upload FD URI`: one shard to S3, at the lowest priority.

FD is the shard's file, inherited. Prints the shard's FileEntry, or with exit code 1 a Failure. Its
standard input ends with the rank that started it, and then it ends as well.
"""

import os
import sys
import threading
from pathlib import Path

from finetune_api.names import EXIT_CRASH
from finetune_api.uris import S3Uri
from finetune_data.failures import StorageError
from finetune_data.manifests import FileEntry, sha256
from finetune_data.storage import Storage

NICENESS = 19  # the training comes first


def main(descriptor: int, uri: S3Uri) -> int:
    """Hash and upload what `descriptor` holds."""
    os.nice(NICENESS)
    threading.Thread(target=_end_with_the_rank, daemon=True).start()
    path = Path(f"/dev/fd/{descriptor}")
    entry = FileEntry(
        path=uri.key.rpartition("/")[2], size=os.fstat(descriptor).st_size, sha256=sha256(path)
    )
    try:
        Storage.from_environment().upload_file(path, uri)
    except StorageError as error:
        print(error.failure.to_json(), flush=True)
        return EXIT_CRASH
    print(entry.to_json(), flush=True)
    return 0


def _end_with_the_rank() -> None:
    sys.stdin.read()
    os._exit(EXIT_CRASH)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), S3Uri.parse(sys.argv[2])))
