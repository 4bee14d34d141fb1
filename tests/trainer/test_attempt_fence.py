"""An attempt that was cut off from the cluster, but not from S3, does no harm to its successor."""

from itertools import count

import pytest

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST, RunLayout
from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics
from finetune_storage.manifests import FileEntry
from finetune_storage.s3 import Storage
from finetune_trainer.attempt_fence import AttemptFence
from finetune_trainer.checkpoint.catalog import (
    CheckpointCatalog,
    CheckpointManifest,
    shard_name,
)
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.outputs.results_csv import Results
from tests.trainer import support

_numbers = count(1)


@pytest.fixture
def layout() -> RunLayout:
    return RunLayout.of(f"s3://{support.BUCKET}/fence", "team", "run", f"{next(_numbers):08d}")


def fence(layout: RunLayout, storage: Storage, attempt: int) -> AttemptFence:
    return AttemptFence(layout, storage, attempt)


def catalog(layout: RunLayout, storage: Storage, attempt: int) -> CheckpointCatalog:
    return CheckpointCatalog(layout, storage, fence(layout, storage, attempt))


def save(
    layout: RunLayout, storage: Storage, attempt: int, step: int, *, complete: bool = True
) -> None:
    """The files of a checkpoint of two ranks."""
    names = [shard_name(rank, 2, attempt) for rank in range(2)]
    for name in names:
        storage.write_bytes(layout.checkpoint(step).child(name), b"x")
    if complete:
        entries = [FileEntry(path=name, size=1, sha256="0" * 64) for name in names]
        catalog(layout, storage, attempt).complete(
            CheckpointManifest(
                attempt=attempt, ranks=2, state=TrainingState(step=step), files=entries
            )
        )


def files(layout: RunLayout, storage: Storage) -> dict[int, list[str]]:
    """By step: the attempts whose shards exist, and whether there is a manifest."""
    found: dict[int, list[str]] = {}
    for entry in storage.list(layout.checkpoints):
        step, name = entry.key.split("/")[-2:]
        text = MANIFEST if name == MANIFEST else name.partition("attempt-")[2][0]
        names = found.setdefault(int(step.removeprefix("step-")), [])
        if text not in names:
            names.append(text)
    return {step: sorted(names) for step, names in found.items()}


def is_stopped(fenced: AttemptFence) -> bool:
    try:
        fenced.check()
    except FailureError as error:
        assert error.failure.code == Reason.POD_LOST
        return True
    return False


def test_an_older_attempt_stops_and_a_newer_one_does_not(
    layout: RunLayout, storage: Storage
) -> None:
    older, newer = fence(layout, storage, 9), fence(layout, storage, 10)
    older.begin()
    assert not is_stopped(older)
    assert not is_stopped(newer)
    newer.begin()
    newer.begin()  # a second pod of the same rank; the publishing lock decides between the two
    assert is_stopped(older)
    assert not is_stopped(newer)
    with pytest.raises(FailureError, match="attempt 9 stopped, because attempt 10"):
        older.begin()


def test_other_objects_are_no_markers(layout: RunLayout, storage: Storage) -> None:
    for name in ("attempt-7", "attempt-x.json", "old/attempt-8.json", f"attempt-{'9' * 30}.json"):
        storage.write_bytes(layout.markers.child(name), b"{}")
    assert not is_stopped(fence(layout, storage, 1))
    storage.write_bytes(layout.markers.child("attempt-3.json"), b"not JSON")
    assert is_stopped(fence(layout, storage, 1))
    assert not fence(layout, storage, 4).is_late(1, 5)


def test_every_write_of_a_stopped_attempt_is_refused(layout: RunLayout, storage: Storage) -> None:
    class Own(Storage):
        """A connection of its own, as a pod has."""

    own = Own(storage._client)
    older = fence(layout, own, 1)
    older.begin()
    own.before_write = older.check
    results = Results(layout.results, own, ["step"], upload_seconds=0.01)
    results.start(0)
    results.add({"step": 1})
    results.upload()
    before = storage.read_bytes(layout.results)
    fence(layout, storage, 2).begin()
    with pytest.raises(FailureError, match="attempt 1 stopped"):
        own.write_bytes(layout.manifest, b"{}")
    with pytest.raises(FailureError, match="attempt 1 stopped"):
        own.write_bytes(layout.manifest, b"{}", only_if_absent=True)
    with pytest.raises(FailureError, match="attempt 1 stopped"):
        while True:  # the thread that uploads the rows finds the marker
            results.add({"step": 2})
    with pytest.raises(FailureError, match="attempt 1 stopped"):
        results.close()
    assert storage.read_bytes(layout.results) == before
    assert not storage.exists(layout.manifest)


def test_pruning_leaves_the_checkpoints_of_a_newer_attempt(
    layout: RunLayout, storage: Storage
) -> None:
    for step in (10, 20, 30):
        save(layout, storage, 1, step)
    for step in (15, 20):
        save(layout, storage, 2, step)  # it continued from step 10, and trained 20 again
    save(layout, storage, 2, 25, complete=False)
    save(layout, storage, 1, 40)
    catalog(layout, storage, 1).prune(TrainingState(step=40))
    assert files(layout, storage) == {
        15: ["2", MANIFEST],
        20: ["2", MANIFEST],
        25: ["2"],
        30: ["1", MANIFEST],
        40: ["1", MANIFEST],
    }


def test_pruning_removes_what_dead_attempts_left(layout: RunLayout, storage: Storage) -> None:
    save(layout, storage, 1, 10, complete=False)
    save(layout, storage, 1, 20, complete=False)
    save(layout, storage, 2, 20)
    save(layout, storage, 1, 25, complete=False)
    save(layout, storage, 2, 30, complete=False)
    save(layout, storage, 3, 30)
    save(layout, storage, 2, 35, complete=False)
    save(layout, storage, 3, 40, complete=False)
    catalog(layout, storage, 3).prune(TrainingState(step=30))
    kept = {20: ["2", MANIFEST], 30: ["3", MANIFEST]}
    assert files(layout, storage) == kept | {35: ["2"], 40: ["3"]}  # later steps are not known yet


def test_the_best_and_the_newest_checkpoints_are_kept(layout: RunLayout, storage: Storage) -> None:
    for step in (10, 20, 30, 40):
        save(layout, storage, 1, step)
    metrics = [
        EpochMetrics(epoch=1, step=10, validation_loss=0.5),
        EpochMetrics(epoch=2, step=20, validation_loss=0.9),
    ]
    catalog(layout, storage, 1).prune(TrainingState(step=40, completed_epochs=metrics))
    assert list(files(layout, storage)) == [10, 30, 40]


def test_a_checkpoint_that_was_completed_too_late_is_skipped(
    layout: RunLayout, storage: Storage
) -> None:
    """Attempt 2 looked for checkpoints before attempt 1 wrote the manifest of step 30."""
    save(layout, storage, 1, 20)
    second = fence(layout, storage, 2)
    second.begin()
    assert catalog(layout, storage, 2).newest(set()) == 20
    second.record_start(20)
    save(layout, storage, 1, 30)
    assert catalog(layout, storage, 3).newest(set()) == 20
    save(layout, storage, 2, 30)  # the second one has trained it now
    assert catalog(layout, storage, 3).newest(set()) == 30
    assert catalog(layout, storage, 3).newest({30}) == 20
    assert catalog(layout, storage, 3).newest({20, 30}) == 0


def test_an_attempt_that_ended_before_it_trained_makes_no_checkpoint_late(
    layout: RunLayout, storage: Storage
) -> None:
    fence(layout, storage, 2).begin()
    save(layout, storage, 1, 30)
    assert catalog(layout, storage, 3).newest(set()) == 30


def test_a_checkpoint_that_is_deleted_meanwhile_is_no_error(
    layout: RunLayout, storage: Storage
) -> None:
    assert catalog(layout, storage, 1).read(70) is None
