"""Base model and dataset, fetched by the launcher while the workers still import torch."""

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
    """Runs in a thread. `error` is what ended it, if anything did."""

    def __init__(
        self,
        task: TrainTask,
        work: WorkDir,
        storage: Storage,
        *,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """before: the last thing that is waited for before the workers are told to go on."""
        self._before = before
        self._task = task
        self._work = work
        self._storage = storage
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work.tell_fetch("downloading the dataset")
            dataset = fetch_dataset(
                S3Uri.parse(self._task.dataset),
                self._work.dataset,
                self._storage,
                progress=self._percent("downloading the dataset"),
            )
            (self._work.dataset / MANIFEST).write_text(dataset.manifest.to_json())
            base_model = fetch_base_model(
                self._task.base,
                self._work.base_model,
                self._storage,
                weights=True,
                progress=self._percent("downloading the base model"),
            )
            print("base model and dataset are here", flush=True)
            self._before()
            self._work.tell_fetch("loading the base model", base_model)
        except Exception as error:
            self.error = error

    def _percent(self, what: str) -> Callable[[int, int], None]:
        told = -1

        def tell(done: int, total: int) -> None:
            nonlocal told
            percent = 100 * done // total if total else 100
            if percent != told:
                told = percent
                self._work.tell_fetch(f"{what}: {percent} %")

        return tell
