"""The downloads of a pod, with and without a model cache."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.tasks import ModelCacheRef, TrainTask
from finetune_api.uris import S3Uri
from finetune_data.models.cache.entry import Entry
from finetune_data.models.cache.volume import CacheVolume
from finetune_data.models.pinning import pin_base_model
from finetune_data.models.remote_model import RemoteFile
from finetune_storage.s3 import Storage
from finetune_trainer.launcher.downloads import WAITING, Downloads
from finetune_trainer.workdir import WorkDir
from tests.data.builders import objects_read, put_folder, safetensors_bytes, write_tokenizer
from tests.trainer import support

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def task(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> TrainTask:
    """A FineTune whose base model and dataset are in S3."""
    folder = tmp_path_factory.mktemp("task")
    uri = S3Uri.parse(f"s3://{support.BUCKET}/models/without-torch")
    (write_tokenizer(folder / "model") / WEIGHTS).write_bytes(safetensors_bytes())
    put_folder(storage, folder / "model", uri)
    task = support.train_task("downloads", nodes=1)
    support.put_dataset(
        *(storage, S3Uri.parse(task.dataset), folder / "data"),
        train=support.random_examples(4, seed=1),
    )
    return task.replace(base=task.base.replace(uri=str(uri)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


class Pod:
    """The downloads of one pod, and its working directory."""

    def __init__(self, task: TrainTask, storage: Storage, folder: Path, root: Path | None) -> None:
        folder.mkdir()
        cache = None if root is None else ModelCacheRef(path=str(root))
        self.workdir = WorkDir(folder)
        self.downloads = Downloads(task.replace(model_cache=cache), self.workdir, storage)

    def run(self) -> Path:
        self.downloads.run()
        if self.downloads.error is not None:
            raise self.downloads.error
        found = self.workdir.downloaded_base_model()
        assert found is not None
        assert (found / WEIGHTS).read_bytes() == safetensors_bytes()
        return found


@pytest.fixture
def weights_read(storage: Storage) -> Iterator[list[str]]:
    with objects_read(storage, WEIGHTS) as names:
        yield names


def test_attempts_share_the_base_model(
    task: TrainTask, storage: Storage, tmp_path: Path, root: Path, weights_read: list[str]
) -> None:
    for attempt in ("first", "second"):
        folder = Pod(task, storage, tmp_path / attempt, root).run()
        assert folder == tmp_path / attempt / "base-model"
        assert (folder / WEIGHTS).resolve().is_relative_to(root)
        assert not (folder / "config.json").is_symlink()
    assert len(weights_read) == 1


def test_without_a_cache_each_attempt_downloads_to_its_own_volume(
    task: TrainTask, storage: Storage, tmp_path: Path, weights_read: list[str]
) -> None:
    for attempt in ("first", "second"):
        folder = Pod(task, storage, tmp_path / attempt, None).run()
        assert not (folder / WEIGHTS).is_symlink()
    assert len(weights_read) == 2


def test_a_cache_that_cannot_be_used_is_a_warning(
    task: TrainTask, storage: Storage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Pod(task, storage, tmp_path / "pod", tmp_path / "missing").run()
    assert not (folder / WEIGHTS).is_symlink()
    log = capfd.readouterr().out
    assert f"warning: the model cache is not used: {tmp_path / 'missing'} cannot be used" in log


def test_a_cache_that_is_too_small_is_a_warning(
    task: TrainTask, storage: Storage, tmp_path: Path, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pod = Pod(task, storage, tmp_path / "pod", root)
    cache = ModelCacheRef(path=str(root), max_bytes=1)
    pod.downloads = Downloads(task.replace(model_cache=cache), pod.workdir, storage)
    assert not (pod.run() / WEIGHTS).is_symlink()
    assert "of at most 0.0 GB" in capfd.readouterr().out


def test_a_waiting_pod_shows_that_it_waits(
    task: TrainTask,
    storage: Storage,
    tmp_path: Path,
    root: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    uri = S3Uri.parse(task.base.uri)
    (listed,) = [found for found in storage.list(uri) if found.key.endswith(WEIGHTS)]
    volume = CacheVolume.open(root)
    files = [RemoteFile(WEIGHTS, listed.size, listed.etag)]
    entry = Entry(volume, f"{storage.endpoint} {uri}", files)
    lock = volume.lock(f"{entry.key}.download")
    assert lock is not None
    pod = Pod(task, storage, tmp_path / "pod", root)
    thread = threading.Thread(target=pod.run)
    with lock:
        assert lock.try_exclusive()
        thread.start()
        while not pod.workdir.download_detail().startswith(WAITING):
            assert thread.is_alive()
            assert pod.workdir.downloaded_base_model() is None
    thread.join(30)
    assert pod.downloads.error is None
    assert (tmp_path / "pod" / "base-model" / WEIGHTS).is_symlink()
    assert capfd.readouterr().out.count(WAITING) == 1


def test_a_base_model_that_was_replaced_after_it_was_pinned_is_refused(
    task: TrainTask, storage: Storage, tmp_path: Path, root: Path, weights_read: list[str]
) -> None:
    uri = S3Uri.parse(f"s3://{support.BUCKET}/models/replaced-without-torch")
    (write_tokenizer(tmp_path / "model") / WEIGHTS).write_bytes(safetensors_bytes())
    put_folder(storage, tmp_path / "model", uri)
    base = task.base.replace(uri=str(uri))
    pinned = pin_base_model(base, tmp_path / "listed", storage)
    Pod(task.replace(base=pinned), storage, tmp_path / "before", root).run()
    storage.write_bytes(uri.child(WEIGHTS), safetensors_bytes()[:-4] + b"\1\2\3\4")
    weights_read.clear()
    for name, cache in (("cached", root), ("plain", None)):
        with pytest.raises(FailureError) as caught:
            Pod(task.replace(base=pinned), storage, tmp_path / name, cache).run()
        assert caught.value.failure.code == Reason.BASE_MODEL_CHANGED
    assert weights_read == []
