"""A run that is killed at any moment ends with the same results, bit for bit."""

import random
from pathlib import Path

import pytest

from finetune_api.layout import MANIFEST
from finetune_api.tasks import TrainTask
from finetune_api.uris import S3Uri
from finetune_data.lookup.published import ModelManifest
from finetune_storage.s3 import Storage
from tests.support.cases import ALL_CASES
from tests.trainer import kills, support

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("base_model")]

EXAMPLES = support.random_examples(60, seed=1, longest=40)
KILLS = 20 if ALL_CASES else 6
STEPS = 12 * KILLS  # 8 of them are an epoch


def prepared(uid: str, storage: Storage, folder: Path) -> TrainTask:
    task = support.train_task(
        uid,
        nodes=1,
        training_examples=len(EXAMPLES),
        validation_examples=10,
        hyperparameters=support.hyperparameters(n_epochs=STEPS // 8),
        checkpoint_seconds=0,  # a checkpoint is always being saved
    )
    uri = S3Uri.parse(task.dataset)
    support.put_dataset(
        storage, uri, folder / f"data-{uid}", train=EXAMPLES, validation=EXAMPLES[:10]
    )
    return task


def attempt(task: TrainTask, number: int) -> TrainTask:
    return task.replace(attempt=number, progress_port=support.free_port())


def is_unfinished(storage: Storage, task: TrainTask) -> bool:
    """Whether a checkpoint has a shard but no manifest: its upload is incomplete."""
    names = [entry.key.split("/")[-2:] for entry in storage.list(task.run.layout.checkpoints)]
    steps = {step for step, _ in names}
    return bool(steps - {step for step, name in names if name == MANIFEST})


def results_and_weights(storage: Storage, task: TrainTask) -> tuple[bytes, list[str]]:
    layout = task.run.layout
    manifest = ModelManifest.model_validate_json(storage.read_bytes(layout.model.child(MANIFEST)))
    weights = [f.sha256 for f in manifest.files if f.path.endswith(".safetensors")]
    return storage.read_bytes(layout.results), weights


@pytest.fixture(scope="module")
def undisturbed(
    storage: Storage, base_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, list[str]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    task = prepared("whole run", storage, folder)
    process = kills.start(task, folder / "work")
    process.join()
    assert process.exitcode == 0, (folder / "work.log").read_text()
    return results_and_weights(storage, task)


def test_killed_at_random_steps_it_ends_with_the_same_rows_and_weights(
    undisturbed: tuple[bytes, list[str]], storage: Storage, tmp_path: Path
) -> None:
    task = prepared("killed often", storage, tmp_path)
    chance = random.Random(5)
    during_upload = 0
    resumed: list[int] = []
    for number in range(1, KILLS + 1):
        now = attempt(task, number)
        process = kills.start(now, tmp_path / f"work-{number}")
        step = chance.randint(STEPS * (number - 1) // KILLS, STEPS * number // KILLS - 2)
        is_upload = number % 2 == 0  # every other kill waits for an upload that has just begun

        def is_time(now: TrainTask = now, step: int = step, upload: bool = is_upload) -> bool:
            return kills.step_of(now) >= step and (not upload or is_unfinished(storage, now))

        assert kills.kill_when(process, is_time), (tmp_path / f"work-{number}.log").read_text()
        during_upload += is_unfinished(storage, task)
        steps = support.checkpoint_steps(storage, task)
        resumed.append(steps[-1] if steps else 0)
    process = kills.start(attempt(task, KILLS + 1), tmp_path / "work-last")
    process.join()
    assert process.exitcode == 0, (tmp_path / "work-last.log").read_text()
    print(f"checkpoints after the kills: {resumed}; {during_upload} kills during an upload")
    assert during_upload >= KILLS // 6
    assert resumed[-1] > STEPS * (3 if ALL_CASES else 2) // 4
    assert results_and_weights(storage, task) == undisturbed
