"""Uploads one shard to S3 at the lowest priority.

Run as `python -m finetune_trainer.checkpoint.shard_upload FD URI`. FD is an inherited descriptor of
the shard's file. Prints the shard's FileEntry, or a Failure with exit code 1. The process ends when
its standard input is closed, that is, together with the rank that started it.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path

NICENESS = 19


def lower_priority() -> None:
    """Use only CPUs that would be idle, so that training is not slowed down."""
    os.nice(NICENESS)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may refuse it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(descriptor: int, address: str) -> int:
    """Hash and upload the file behind `descriptor`."""
    lower_priority()  # before the imports, which take more CPU time than most shards
    from finetune_api.names import EXIT_CRASH, EXIT_OK
    from finetune_api.uris import S3Uri
    from finetune_storage.connect import open_storage
    from finetune_storage.errors import StorageError
    from finetune_storage.manifests import FileEntry, sha256
    from finetune_storage.messages import process_audience

    threading.Thread(target=_end_with_the_rank, args=(EXIT_CRASH,), daemon=True).start()
    uri, path = S3Uri.parse(address), Path(f"/dev/fd/{descriptor}")
    entry = FileEntry(
        path=uri.key.rpartition("/")[2], size=os.fstat(descriptor).st_size, sha256=sha256(path)
    )
    try:
        open_storage().upload_file(path, uri)
    except StorageError as error:
        print(error.failure_for(process_audience()).to_json(), flush=True)
        return EXIT_CRASH
    print(entry.to_json(), flush=True)
    return EXIT_OK


def _end_with_the_rank(code: int) -> None:
    sys.stdin.read()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
