"""Which of several pods publishes a model."""

from itertools import count

import pytest

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
    return support.train_task(f"{next(_numbers)} claims")


def never(*_: object) -> Outcome | None:
    raise AssertionError("nobody is waited for")


def said(_: str) -> None:
    """Nobody listens here."""


def test_the_first_one_publishes(task: TrainTask, storage: Storage) -> None:
    assert wait_for_duplicate_pod(task, storage, never, said) is None


def test_a_second_pod_of_the_attempt_takes_over_what_the_first_one_published(
    task: TrainTask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock.time, "sleep", lambda _: None)
    wait_for_duplicate_pod(task, storage, never, said)
    answers = iter([None, None, trained()])
    words: list[str] = []
    found = wait_for_duplicate_pod(task, storage, lambda *_: next(answers), words.append)
    assert found == trained()
    assert words == ["another pod of this rank publishes the model"]


def test_a_pod_that_died_while_it_published_is_given_up(
    task: TrainTask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.0)
    wait_for_duplicate_pod(task, storage, never, said)
    assert wait_for_duplicate_pod(task, storage, lambda *_: None, said) is None


def test_the_next_attempt_waits_for_nobody(task: TrainTask, storage: Storage) -> None:
    wait_for_duplicate_pod(task, storage, never, said)
    assert wait_for_duplicate_pod(task.replace(attempt=2), storage, never, said) is None
    claimed = PublishLock.model_validate_json(storage.read_bytes(task.run.layout.root.child(LOCK)))
    assert claimed.attempt == 2
