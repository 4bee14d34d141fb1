"""Downloads the model of a serving pod before its server starts.

The folder is a volume of the pod, which keeps its files when the container is started again. Files
that are complete already are then kept, and all others are replaced or deleted. config.json,
without which no server loads a model, appears after the weights, and manifest.json at the very end.

The limits of the confined process (`finetune_data.confined`) fit a download of any size. Only
sections have a limit of time, and a download has none. The limit of data does not count the cache
of written files, and no weights are mapped into memory; it stops a manifest or a header that would
take the memory of the node.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST
from finetune_api.outcome import Outcome
from finetune_api.tasks import FetchTask
from finetune_api.uris import S3Uri
from finetune_data.failures import invalid_address
from finetune_data.models.base_models import CONFIG, find_problem
from finetune_data.pod_log import log
from finetune_data.pod_task import FULL, PodTask
from finetune_serving.models import failures
from finetune_serving.models.download import (
    PublishedModel,
    download,
    find_model,
    list_objects,
)
from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage

EVERY_SECONDS = 10.0  # between two lines of the log

Clock = Callable[[], float]


def fetch_model(task: FetchTask, storage: Storage, clock: Clock = time.monotonic) -> None:
    """Download and verify the files of a model. Raises FailureError, in one sentence.

    Afterwards the folder has exactly the files of the manifest without the adapter, and the
    manifest. A download that fails leaves no manifest. clock: in seconds.
    """
    uri, folder = _address(task), Path(task.folder)
    with _volume_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        model = find_model(storage, uri, folder, task.manifest_sha256)
        if CONFIG not in model.paths:
            raise FailureError(failures.no_published_model(uri, f"{CONFIG} is missing"))
        objects = list_objects(storage, model)
        keep_only(model.paths - {CONFIG, MANIFEST}, folder)
        if storage.needs_space(uri):
            _check_space(model, folder)
        log(f"downloading {uri}: {len(model.files):,} files, {_gigabytes(model.size)}")
        started = clock()
        progress = DownloadLog(clock)
        downloaded = download(storage, model, objects, folder, progress)
        if problem := find_problem(folder, weights=True, hashed=model.paths):
            raise FailureError(failures.unloadable_model(uri, problem))
        (folder / MANIFEST).write_bytes(model.manifest)
        log(_summary(downloaded, model.size - downloaded, clock() - started))


class DownloadLog:
    """A ProgressCallback that logs a line about every ten seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock() + EVERY_SECONDS

    def __call__(self, done: int, total: int) -> None:
        """done, total: bytes."""
        now = self._clock()
        if now >= self._next and total:
            self._next = now + EVERY_SECONDS
            share = 100 * done // total
            log(f"downloading: {share} %, {done / 1e9:,.1f} of {_gigabytes(total)}")


def keep_only(paths: Collection[str], folder: Path) -> None:
    """Delete everything in the folder but the files with these paths: partial and foreign files.

    No link is followed. A folder that cannot be deleted, such as lost+found, stays.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()  # which only deletes an empty folder
        elif path.relative_to(folder).as_posix() not in paths:
            path.unlink()


def _address(task: FetchTask) -> S3Uri:
    try:
        return S3Uri.parse(task.uri)
    except ValueError as error:
        raise FailureError(invalid_address(error, "uri")) from error


def _check_space(model: PublishedModel, folder: Path) -> None:
    """Raise FailureError for a volume that is too small before gigabytes are downloaded."""
    needed = sum(
        entry.size
        for entry in model.files
        if not (path := folder / entry.path).is_file() or path.stat().st_size != entry.size
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FailureError(failures.no_space(model.uri, folder, needed=needed, free=free))


@contextmanager
def _volume_of(folder: Path) -> Iterator[None]:
    """Name the folder in the failure of a full volume."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise FailureError(failures.full_volume(folder)) from error
        raise


def _summary(downloaded: int, kept: int, seconds: float) -> str:
    rate = f" ({downloaded / 1e6 / seconds:,.0f} MB/s)" if seconds > 0 else ""
    rest = f"; {_gigabytes(kept)} were already complete" if kept else ""
    return f"downloaded and verified {_gigabytes(downloaded)} in {seconds:,.0f} s{rate}{rest}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _fetch(task: FetchTask) -> Outcome:
    fetch_model(task, open_storage())
    return Outcome()


POD = PodTask(
    "python -m finetune_serving.fetch",
    "Download the model of the FetchTask in FINETUNE_TASK.",
    FetchTask,
    _fetch,
    failures.download_crashed,
    lambda _: "the model is complete",
)

if __name__ == "__main__":
    sys.exit(POD.main())
