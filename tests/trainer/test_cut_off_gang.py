"""A gang that stands still for a whole attempt, as on a paused node, and then continues."""

import os
import signal
from pathlib import Path

import pytest

from finetune_api.names import EXIT_CRASH, EXIT_OK, Reason
from finetune_api.uris import S3Uri
from finetune_storage.s3 import Storage
from tests.trainer import support
from tests.trainer.support import Pod, checkpoint_steps
from tests.trainer.test_pods import next_attempt, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("base_model")]

EXAMPLES = support.random_examples(40, seed=1)
EPOCHS = 6
POD_SECONDS = 600


def test_an_attempt_that_nobody_ended_changes_nothing_after_the_next_one(
    storage: Storage, tmp_path: Path
) -> None:
    task = support.train_task(
        "cut off",
        nodes=1,
        training_examples=len(EXAMPLES),
        hyperparameters=support.hyperparameters(n_epochs=EPOCHS),
    )
    support.put_dataset(storage, S3Uri.parse(task.dataset), tmp_path / "data", train=EXAMPLES)
    older = Pod.start(task, 0, tmp_path / "older")
    wait_for(lambda: bool(checkpoint_steps(storage, task)), [older])
    os.kill(older.rank_pid, signal.SIGSTOP)
    try:
        newer = Pod.start(next_attempt(task), 0, tmp_path / "newer")
        assert newer.wait(POD_SECONDS) == EXIT_OK, newer.log
        assert "resumed from the checkpoint of step " in newer.log
        before = storage.list(task.run.layout.root)
    finally:
        os.kill(older.rank_pid, signal.SIGCONT)
    assert older.wait(POD_SECONDS) == EXIT_CRASH, older.log
    assert older.outcome is not None and older.outcome.failure is not None
    failure = older.outcome.failure
    assert failure.code == Reason.POD_LOST
    assert "attempt 1 stopped, because attempt 2" in failure.message
    ours = [entry for entry in storage.list(task.run.layout.root) if not is_shard(entry.key, 1)]
    assert ours == [entry for entry in before if not is_shard(entry.key, 1)]


def is_shard(key: str, attempt: int) -> bool:
    """Shards have names of their own in each attempt, so that a late one replaces nothing."""
    return key.endswith(f"attempt-{attempt}.safetensors")
