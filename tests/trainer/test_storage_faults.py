"""S3 faults during publishing, and two pods of one rank: there is one intact model, or none.

Numbers: reliability table (T27, T28).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.layout import MANIFEST
from finetune_api.names import EXIT_OK, EXIT_UNAVAILABLE, EXIT_USER, Reason
from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_data.lookup.published import ModelManifest
from finetune_storage.manifests import find_damage
from finetune_storage.s3 import Storage
from tests.support.proxy import (
    Answer,
    Cut,
    Delay,
    Fault,
    FaultyProxy,
    Rule,
    Seen,
    let_pass,
    s3_error,
)
from tests.trainer import support
from tests.trainer.support import Pod

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("base_model")]

TRAINING = support.random_examples(24, seed=1)


@pytest.fixture
def proxy(
    s3_server: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    """Between the pods and S3."""
    with FaultyProxy(s3_server) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        yield made


def prepared(uid: str, storage: Storage, folder: Path) -> TrainTask:
    task = support.train_task(
        uid,
        nodes=1,
        training_examples=len(TRAINING),
        hyperparameters=support.hyperparameters(n_epochs=1),
    )
    dataset = S3Uri.parse(task.dataset)
    support.put_dataset(storage, dataset, folder / "data", train=TRAINING)
    return task


def next_attempt(task: TrainTask) -> TrainTask:
    ports = {"master_port": support.free_port(), "progress_port": support.free_port()}
    return task.replace(attempt=task.attempt + 1, **ports)


def into_the_model(name: str, fault: Fault) -> Rule:
    """Inject the fault into every write of a file of the published model."""

    def rule(seen: Seen) -> Fault | None:
        return fault if seen.number and f"/model/{name}" in seen.path else None

    return rule


def is_published(storage: Storage, task: TrainTask) -> bool:
    return storage.exists(task.run.layout.model.child(MANIFEST))


def check_model(storage: Storage, task: TrainTask, folder: Path) -> ModelManifest:
    """Check that the model has exactly the files of its manifest; return the manifest."""
    uri = task.run.layout.model
    paths = storage.download_prefix(uri, folder)
    manifest = ModelManifest.model_validate_json((folder / MANIFEST).read_bytes())
    assert find_damage(folder, manifest.files) is None
    assert set(paths) == {file.path for file in manifest.files} | {MANIFEST}
    return manifest


@pytest.mark.parametrize(
    ("name", "fault", "reason", "code"),
    [
        ("model.safetensors", s3_error(503, "SlowDown"), Reason.S3_UNAVAILABLE, EXIT_UNAVAILABLE),
        (MANIFEST, s3_error(403, "AccessDenied"), Reason.S3_ACCESS_DENIED, EXIT_USER),
    ],
)
def test_after_a_rejected_upload_the_next_attempt_publishes_the_model(
    name: str,
    fault: Answer,
    reason: str,
    code: int,
    proxy: FaultyProxy,
    storage: Storage,
    tmp_path: Path,
) -> None:
    task = prepared(f"{code} refused", storage, tmp_path)
    proxy.rule = into_the_model(name, fault)
    pod = Pod.start(task, 0, tmp_path / "first")
    assert pod.wait() == code, pod.log
    assert pod.outcome is not None
    assert pod.outcome.failure is not None
    assert pod.outcome.failure.code == reason
    assert not is_published(storage, task)
    proxy.rule = let_pass
    again = Pod.start(next_attempt(task), 0, tmp_path / "second")
    assert again.wait() == EXIT_OK, again.log
    assert check_model(storage, task, tmp_path / "model").attempt == 2


def test_after_a_lost_answer_the_attempt_finds_its_own_manifest(
    proxy: FaultyProxy, storage: Storage, tmp_path: Path
) -> None:
    task = prepared("answer lost", storage, tmp_path)
    cut: list[Seen] = []

    def once(seen: Seen) -> Cut | None:
        if cut or not seen.number or f"/model/{MANIFEST}" not in seen.path:
            return None
        cut.append(seen)
        return Cut()

    proxy.rule = once
    pod = Pod.start(task, 0, tmp_path / "pod")
    assert pod.wait() == EXIT_OK, pod.log
    assert cut
    assert pod.outcome is not None
    assert pod.outcome.trained is not None
    manifest = check_model(storage, task, tmp_path / "model")
    assert manifest.id == pod.outcome.trained.fine_tuned_model


def test_t28_a_rank_that_is_started_twice_publishes_one_intact_model(
    proxy: FaultyProxy, storage: Storage, tmp_path: Path
) -> None:
    task = prepared("twice", storage, tmp_path)
    duplicate = task.replace(master_port=support.free_port(), progress_port=support.free_port())
    pods = [Pod.start(task, 0, tmp_path / "left"), Pod.start(duplicate, 0, tmp_path / "right")]
    assert [pod.wait() for pod in pods] == [EXIT_OK, EXIT_OK], [pod.log for pod in pods]
    manifest = check_model(storage, task, tmp_path / "model")
    for pod in pods:
        assert pod.outcome is not None
        assert pod.outcome.trained is not None
        assert pod.outcome.trained.fine_tuned_model == manifest.id


def test_t27_a_bad_answer_to_the_first_try_of_every_request_changes_nothing(
    proxy: FaultyProxy, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "6")
    faults = [s3_error(503, "SlowDown"), s3_error(500, "InternalError"), Cut()]
    tries: Counter[tuple[str, str]] = Counter()
    hit: Counter[str] = Counter()

    def first_try(seen: Seen) -> Fault | None:
        tries[seen.method, seen.path] += 1
        if tries[seen.method, seen.path] % 2 == 0:
            return None
        hit[seen.method] += 1
        return faults[hit.total() % len(faults)]

    proxy.rule = first_try
    task = prepared("every request", storage, tmp_path)
    pod = Pod.start(task, 0, tmp_path / "pod")
    assert pod.wait() == EXIT_OK, pod.log
    assert hit["GET"] >= 3
    assert hit["PUT"] + hit["POST"] >= 6
    assert check_model(storage, task, tmp_path / "model").attempt == 1


def test_t27_slow_s3_is_waited_for(proxy: FaultyProxy, storage: Storage, tmp_path: Path) -> None:
    proxy.rule = lambda _: Delay(0.3)
    task = prepared("slow", storage, tmp_path)
    pod = Pod.start(task, 0, tmp_path / "pod")
    assert pod.wait() == EXIT_OK, pod.log
    check_model(storage, task, tmp_path / "model")


def test_t27_a_bucket_that_disappears_during_the_training_is_named_and_nothing_is_published(
    proxy: FaultyProxy, storage: Storage, tmp_path: Path
) -> None:
    task = prepared("gone", storage, tmp_path)
    writes: list[Seen] = []

    def gone(seen: Seen) -> Answer | None:
        if seen.number and f"/{S3Uri.parse(task.run.output).key}" in seen.path:
            writes.append(seen)
        return s3_error(404, "NoSuchBucket") if len(writes) > 2 else None

    proxy.rule = gone
    pod = Pod.start(task, 0, tmp_path / "pod")
    assert pod.wait() == EXIT_USER, pod.log
    assert pod.outcome is not None
    assert pod.outcome.failure is not None
    assert pod.outcome.failure.code == Reason.BUCKET_NOT_FOUND
    assert S3Uri.parse(task.run.output).bucket in pod.outcome.failure.message
    assert not is_published(storage, task)
