"""A base model that is replaced during a run ends the run: its weights are never mixed."""

import signal
from pathlib import Path

import pytest

from finetune_api.layout import MANIFEST
from finetune_api.names import EXIT_PREEMPTED, EXIT_UNAVAILABLE, EXIT_USER, Reason
from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_data.lookup.provenance import RunManifest
from finetune_data.models.pinning import pin_base_model
from finetune_storage.s3 import Storage
from tests.data.builders import put_folder
from tests.support.proxy import FaultyProxy, s3_error
from tests.trainer import support
from tests.trainer.support import Pod, checkpoint_steps, start_pods
from tests.trainer.test_pods import next_attempt, wait_for
from tests.trainer.test_storage_faults import into_the_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("base_model")]

EXAMPLES = support.random_examples(60, seed=1)


def prepared(uid: str, storage: Storage, folder: Path, *, epochs: int) -> TrainTask:
    """A FineTune whose prepare Job has pinned a base model of its own."""
    uri = S3Uri.parse(f"s3://{support.BUCKET}/models/{uid}")
    support.put_base_model(storage, uri, folder / "base")
    task = support.train_task(
        uid,
        nodes=1,
        training_examples=len(EXAMPLES),
        hyperparameters=support.hyperparameters(n_epochs=epochs),
    )
    base = pin_base_model(task.base.replace(uri=str(uri)), folder / "listed", storage)
    dataset = S3Uri.parse(task.dataset)
    support.put_dataset(storage, dataset, folder / "data", train=EXAMPLES)
    return task.replace(base=base)


def replace_base(task: TrainTask, storage: Storage, folder: Path) -> None:
    support.tiny_llama(seed=9, tied=True).save_pretrained(folder)
    put_folder(storage, folder, S3Uri.parse(task.base.uri))


def refuse(task: TrainTask, folder: Path) -> None:
    """The next attempt ends with the user's error."""
    pod = Pod.start(next_attempt(task), 0, folder)
    assert pod.wait() == EXIT_USER, pod.log
    assert pod.outcome is not None and pod.outcome.failure is not None
    failure = pod.outcome.failure
    assert failure.code == Reason.BASE_MODEL_CHANGED
    assert f"{task.base.uri} changed after this fine-tune had started" in failure.message


def test_a_base_model_that_is_replaced_between_two_attempts_is_refused(
    storage: Storage, tmp_path: Path
) -> None:
    task = prepared("between attempts", storage, tmp_path, epochs=200)
    (pod,) = start_pods(task, tmp_path / "first")
    wait_for(lambda: bool(checkpoint_steps(storage, task)), [pod])
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == EXIT_PREEMPTED, pod.log
    steps = checkpoint_steps(storage, task)
    replace_base(task, storage, tmp_path / "other")
    refuse(task, tmp_path / "second")
    assert checkpoint_steps(storage, task) == steps


def test_a_base_model_that_is_replaced_before_the_publication_is_refused(
    s3_server: str, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = prepared("published", storage, tmp_path, epochs=1)
    with FaultyProxy(s3_server) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setenv("AWS_MAX_ATTEMPTS", "2")
        proxy.rule = into_the_model("model.safetensors", s3_error(503, "SlowDown"))
        (pod,) = start_pods(task, tmp_path / "first")
        assert pod.wait() == EXIT_UNAVAILABLE, pod.log
    assert checkpoint_steps(storage, task)
    replace_base(task, storage, tmp_path / "other")
    refuse(task, tmp_path / "second")
    assert not storage.exists(task.run.layout.model.child(MANIFEST))
    written = RunManifest.model_validate_json(storage.read_bytes(task.run.layout.manifest))
    assert written.base == task.base
