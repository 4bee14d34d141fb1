"""Only one of several pods publishes a model."""

from itertools import count

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_storage.s3 import Storage
from finetune_trainer.publishing import lock
from finetune_trainer.publishing.lock import LOCK, PublishLock, wait_for_duplicate_pod
from tests.support.objects import trained
from tests.trainer import support

_numbers = count(1)


@pytest.fixture
def task() -> TrainTask:
    return support.train_task(f"{next(_numbers)} lock")


def never(*_: object) -> Outcome | None:
    raise AssertionError("it must not wait")


def ignore(_: str) -> None:
    """The progress is not part of the test."""


def test_the_first_one_publishes(task: TrainTask, storage: Storage) -> None:
    assert wait_for_duplicate_pod(task, storage, never, ignore) is None


def test_a_second_pod_of_the_attempt_returns_the_outcome_of_the_first(
    task: TrainTask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock.time, "sleep", lambda _: None)
    wait_for_duplicate_pod(task, storage, never, ignore)
    answers = iter([None, None, trained()])
    details: list[str] = []
    found = wait_for_duplicate_pod(task, storage, lambda *_: next(answers), details.append)
    assert found == trained()
    assert details == ["another pod of this rank is publishing the model"]


def test_the_wait_for_a_pod_that_died_while_it_published_ends(
    task: TrainTask, storage: Storage
) -> None:
    wait_for_duplicate_pod(task, storage, never, ignore)
    found = wait_for_duplicate_pod(task, storage, lambda *_: None, ignore, seconds=0)
    assert found is None


def test_the_next_attempt_does_not_wait(task: TrainTask, storage: Storage) -> None:
    wait_for_duplicate_pod(task, storage, never, ignore)
    assert wait_for_duplicate_pod(task.replace(attempt=2), storage, never, ignore) is None
    written = PublishLock.model_validate_json(storage.read_bytes(task.run.layout.root.child(LOCK)))
    assert written.attempt == 2


def test_an_older_attempt_leaves_the_claim_of_a_newer_one_and_stops(
    task: TrainTask, storage: Storage
) -> None:
    newer = task.replace(attempt=2)
    wait_for_duplicate_pod(newer, storage, never, ignore)
    uri = task.run.layout.root.child(LOCK)
    written = storage.read_bytes(uri)
    with pytest.raises(FailureError, match="attempt 1 stopped, because attempt 2") as caught:
        wait_for_duplicate_pod(task, storage, never, ignore)
    assert caught.value.failure.code == Reason.POD_LOST
    assert storage.read_bytes(uri) == written
