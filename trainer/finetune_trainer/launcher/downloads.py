"""Downloads the base model and the dataset in a thread, while the ranks import their libraries."""

import threading
from collections.abc import Callable

from finetune_api.layout import MANIFEST
from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_data.models.base_models import fetch_base_model
from finetune_data.tokenize.dataset import fetch_dataset
from finetune_storage.s3 import Storage
from finetune_trainer.workdir import WorkDir


class Downloads:
    """The downloads of one pod. `error` is the exception that ended them, if any."""

    def __init__(
        self,
        task: TrainTask,
        workdir: WorkDir,
        storage: Storage,
        *,
        before_release: Callable[[], None] = lambda: None,
    ) -> None:
        """before_release: called after the downloads, before the ranks may continue."""
        self._before_release = before_release
        self._task = task
        self._workdir = workdir
        self._storage = storage
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self.run, name="downloads", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def run(self) -> None:
        """Download everything; never raises."""
        try:
            self._workdir.write_download_progress("downloading the dataset")
            dataset = fetch_dataset(
                S3Uri.parse(self._task.dataset),
                self._workdir.dataset,
                self._storage,
                progress=self._percent("downloading the dataset"),
            )
            (self._workdir.dataset / MANIFEST).write_text(dataset.manifest.to_json())
            base_model = fetch_base_model(
                self._task.base,
                self._workdir.base_model,
                self._storage,
                weights=True,
                progress=self._percent("downloading the base model"),
            )
            print("downloaded the base model and the dataset", flush=True)
            self._before_release()
            self._workdir.write_download_progress("loading the base model", base_model)
        except Exception as error:
            self.error = error

    def _percent(self, action: str) -> Callable[[int, int], None]:
        last = -1

        def report(done: int, total: int) -> None:
            nonlocal last
            percent = 100 * done // total if total else 100
            if percent != last:
                last = percent
                self._workdir.write_download_progress(f"{action}: {percent} %")

        return report
