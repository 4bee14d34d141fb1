"""Downloads the base model and the dataset in a thread, while the ranks import their libraries."""

import threading
from collections.abc import Callable
from pathlib import Path

from finetune_api.layout import MANIFEST
from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_data.models.base_models import fetch_base_model
from finetune_data.models.cache.locks import CacheError
from finetune_data.models.cache.model_cache import ModelCache
from finetune_data.models.cache.volume import CacheVolume
from finetune_data.tokenize.dataset import fetch_dataset
from finetune_storage.s3 import Storage
from finetune_trainer.workdir import WorkDir

WAITING = "waiting for another pod to download the base model"


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
        self._cache: ModelCache | None = None  # its locks are held until the pod ends
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
            base_model = self._fetch_base_model()
            print("downloaded the base model and the dataset", flush=True)
            self._before_release()
            self._workdir.write_download_progress("loading the base model", base_model)
        except Exception as error:
            self.error = error

    def _fetch_base_model(self) -> Path:
        """The folder of the base model. Without a usable cache, the weights are in it, too."""
        wanted = self._task.model_cache
        if wanted is None:
            return self._fetch(None)
        try:
            volume = CacheVolume.open(Path(wanted.path), wanted.max_bytes, wanted.free_share)
            self._cache = ModelCache(volume, waiting=self._percent(WAITING, is_logged=True))
            return self._fetch(self._cache)
        except CacheError as error:
            if self._cache is not None:
                self._cache.close()
            print(
                f"warning: the model cache is not used: {error}. The base model is downloaded to "
                "the pod's own volume, which may be too small for it.",
                flush=True,
            )
        return self._fetch(None)

    def _fetch(self, cache: ModelCache | None) -> Path:
        return fetch_base_model(
            self._task.base,
            self._workdir.base_model,
            self._storage,
            weights=True,
            progress=self._percent("downloading the base model"),
            cache=cache,
        )

    def _percent(self, action: str, *, is_logged: bool = False) -> Callable[[int, int], None]:
        last = -1

        def report(done: int, total: int) -> None:
            nonlocal last
            percent = 100 * done // total if total else 100
            if percent != last:
                if is_logged and last == -1:
                    print(action, flush=True)
                last = percent
                self._workdir.write_download_progress(f"{action}: {percent} %")

        return report
