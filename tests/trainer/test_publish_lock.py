"""Only one of several pods publishes a model, on S3 and on stores without conditional writes."""

import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_storage.connect import open_storage
from finetune_storage.errors import StorageError
from finetune_storage.manifests import to_bytes
from finetune_storage.s3 import Storage
from finetune_trainer.publishing.lock import (
    LOCK,
    ClaimLostError,
    PublishClaim,
    PublishLock,
    Timing,
    claim_publishing,
    read_lock,
)
from tests.support.objects import trained
from tests.support.proxy import Delay, Fault, FaultyProxy, Seen, let_pass
from tests.support.stores import STORES
from tests.trainer import support

_numbers = count(1)
BEATING = Timing(beat=0.02, dead=30, poll=0.01, settle=0.1)
DEAD = Timing(beat=1000, dead=0, poll=0.01, settle=0.1)  # a holder without a heartbeat


@pytest.fixture
def task() -> TrainTask:
    return support.train_task(f"{next(_numbers)} lock")


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server) as made:
        yield made


@pytest.fixture(scope="module")
def client(storage: Storage, proxy: FaultyProxy) -> Storage:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        return open_storage()


STRANGE = ("no ETags", "changing ETags", "conditions are ignored", "conditions are not implemented")


@pytest.fixture(params=["S3", *(pytest.param(name, marks=pytest.mark.slow) for name in STRANGE)])
def weak(request: pytest.FixtureRequest, proxy: FaultyProxy) -> Iterator[str]:
    proxy.store = STORES[request.param]()
    yield request.param
    proxy.store = STORES["S3"]()
    proxy.rule = let_pass


def never(*_: object) -> Outcome | None:
    raise AssertionError("it must not look for a model")


def nothing(*_: object) -> Outcome | None:
    return None


def ignore(_: str) -> None:
    """The progress is not part of the test."""


def lock_uri(task: TrainTask) -> S3Uri:
    return task.run.layout.root.child(LOCK)


def take(task: TrainTask, storage: Storage, timing: Timing = BEATING) -> PublishClaim:
    claim = claim_publishing(task, storage, nothing, ignore, timing)
    assert isinstance(claim, PublishClaim)
    return claim


def locked(task: TrainTask, storage: Storage) -> PublishLock:
    found = read_lock(lock_uri(task), storage)
    assert found is not None
    return found[0]


def test_the_first_one_publishes(task: TrainTask, storage: Storage) -> None:
    claim = claim_publishing(task, storage, never, ignore)
    assert isinstance(claim, PublishClaim)
    claim.require()


def test_a_twin_of_a_living_holder_waits_for_its_model(
    task: TrainTask, client: Storage, weak: str
) -> None:
    """However long it takes: the holder renews its claim."""
    with take(task, client) as claim:
        before = locked(task, client).beat
        looks: list[int] = []

        def find(*_: object) -> Outcome | None:
            looks.append(locked(task, client).beat)
            return trained() if looks[-1] > before + 3 else None

        details: list[str] = []
        assert claim_publishing(task, client, find, details.append, BEATING) == trained()
        assert details == ["another pod of this rank is publishing the model"]
        claim.require()
    stopped = locked(task, client)
    assert locked(task, client) == stopped


def test_a_dead_holder_is_taken_over_and_stops_if_it_comes_back(
    task: TrainTask, client: Storage, weak: str
) -> None:
    dead = take(task, client, DEAD)
    heir = take(task, client, DEAD)
    heir.require()
    with pytest.raises(ClaimLostError):
        dead.require()
    with dead, heir:  # neither harms the other when it renews
        pass
    heir.require()


def test_a_holder_that_comes_back_does_not_renew_over_its_heir(
    task: TrainTask, client: Storage, weak: str
) -> None:
    dead = take(task, client, DEAD)
    heir = take(task, client, DEAD)
    dead._timing = BEATING
    with dead:
        dead._thread.join(10)
        assert not dead._thread.is_alive()
    heir.require()


def test_one_of_many_pods_that_start_at_once_publishes(
    task: TrainTask, client: Storage, weak: str, proxy: FaultyProxy
) -> None:
    """All have looked for a claim before any of them writes one."""
    race(task, client, proxy, None)


@pytest.mark.slow
def test_one_of_many_pods_takes_over_a_dead_claim(
    task: TrainTask, client: Storage, weak: str, proxy: FaultyProxy
) -> None:
    race(task, client, proxy, take(task, client, DEAD))


def race(task: TrainTask, client: Storage, proxy: FaultyProxy, dead: PublishClaim | None) -> None:
    pods = 4
    writes = count()

    def delayed(seen: Seen) -> Fault | None:
        return Delay(0.05) if seen.method == "PUT" and next(writes) < pods else None

    proxy.rule = delayed
    timing = Timing(beat=1000, dead=1.5 if dead else 1000, poll=0.05, settle=0.5)
    taken: list[PublishClaim] = []
    is_over = threading.Event()

    def find(*_: object) -> Outcome | None:
        return trained() if is_over.is_set() else None

    def run() -> None:
        claim = claim_publishing(task, client, find, ignore, timing)
        if isinstance(claim, PublishClaim):
            try:
                claim.require()
                taken.append(claim)
            except ClaimLostError:
                pass
            is_over.set()

    threads = [threading.Thread(target=run) for _ in range(pods)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    held = [claim for claim in taken if is_holder(claim)]
    assert len(held) == 1


def is_holder(claim: PublishClaim) -> bool:
    try:
        claim.require()
    except ClaimLostError:
        return False
    return True


def test_the_next_attempt_does_not_wait(task: TrainTask, client: Storage, weak: str) -> None:
    old = take(task, client, Timing(beat=1000, dead=1000, settle=0.1))
    take(task.replace(attempt=2), client).require()
    assert locked(task, client).attempt == 2
    assert not is_holder(old)


def test_an_older_attempt_leaves_the_claim_of_a_newer_one_and_stops(
    task: TrainTask, storage: Storage
) -> None:
    take(task.replace(attempt=2), storage)
    written = storage.read_bytes(lock_uri(task))
    with pytest.raises(FailureError, match="attempt 1 stopped, because attempt 2") as caught:
        claim_publishing(task, storage, never, ignore)
    assert caught.value.failure.code == Reason.POD_LOST
    assert storage.read_bytes(lock_uri(task)) == written


@pytest.mark.parametrize(
    "data", [b"", b"{", to_bytes(PublishLock(attempt=1, writer="x"))[:-20], b'{"attempt":1,"x":2}']
)
def test_an_object_that_is_no_claim_is_replaced(
    task: TrainTask, storage: Storage, data: bytes
) -> None:
    storage.write_bytes(lock_uri(task), data or b" ")
    take(task, storage).require()


def test_the_claim_of_the_previous_version_is_understood(task: TrainTask, storage: Storage) -> None:
    storage.write_bytes(lock_uri(task), b'{"attempt": 1, "writer": "0123"}\n')
    assert claim_publishing(task, storage, lambda *_: trained(), ignore) == trained()
    take(task, storage, DEAD).require()


def test_a_store_that_does_not_answer_for_a_while_costs_no_claim(
    task: TrainTask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal has arrived, but its answer was lost."""
    claim = take(task, storage)
    replace: Callable[..., object] = Storage.replace_bytes
    failed = threading.Event()

    def lost(self: Storage, *arguments: object) -> object:
        found = replace(self, *arguments)
        if not failed.is_set():
            failed.set()
            raise StorageError(Failure(code=Reason.S3_UNAVAILABLE, message="lost"))
        return found

    monkeypatch.setattr(Storage, "replace_bytes", lost)
    with claim:
        assert failed.wait(10)
        beat = locked(task, storage).beat
        for _ in range(500):
            if locked(task, storage).beat > beat:
                break
        claim.require()
    assert locked(task, storage).beat > beat
