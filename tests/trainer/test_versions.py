"""Pods of this version and of the previous one take over from each other: `tests.support.previous`.

The chart may pin images of another version than the operator's, and an upgrade or a rollback may
come between any two attempts of a run.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_api.names import EXIT_OK, EXIT_PREEMPTED
from finetune_api.outcome import Outcome, Prepared, Trained
from finetune_api.tasks import DeletionTask, PrepareTask, TrainTask
from finetune_api.uris import S3Uri
from finetune_storage.s3 import Storage
from tests.data.builders import examples, jsonl, prepare_task, put_folder
from tests.support import previous
from tests.support.tiny_model import make_tiny_model
from tests.trainer import support
from tests.trainer.support import Pod, checkpoint_steps, start_pods
from tests.trainer.test_pods import next_attempt, wait_for

pytestmark = pytest.mark.slow

VERSIONS = ("previous", "current")


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Version]":
    yield Version(monkeypatch)


class Version:
    """Switches the version that the processes of a test run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._current = os.environ.get("PYTHONPATH", "")

    def use(self, name: str) -> None:
        path = previous.python_path() if name == "previous" else self._current
        self._patch.setenv("PYTHONPATH", path)


@dataclass(frozen=True)
class Run:
    """A FineTune whose data and base model are in S3."""

    storage: Storage
    uid: str
    folder: Path

    def execute(self, module: str, task: PrepareTask | DeletionTask) -> Outcome:
        """The pod's entry as a process of the version in use."""
        log = self.folder / f"{module}.log"
        ran = subprocess.run(
            [sys.executable, "-m", module, "--termination-log", str(log)],
            env={**os.environ, "FINETUNE_TASK": task.to_json()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == EXIT_OK, ran.stdout + ran.stderr
        outcome = Outcome.parse(log.read_text())
        assert outcome is not None
        return outcome

    def prepare(self) -> Prepared:
        """The dataset that the prepare Job writes."""
        model = make_tiny_model(self.folder / "model")
        uri = S3Uri(support.BUCKET, self.uid)
        put_folder(self.storage, model, uri.child("model"))
        self.storage.write_bytes(uri.child("train.jsonl"), jsonl(examples(200)))
        task = prepare_task(support.BUCKET)
        outcome = self.execute(
            "finetune_data",
            task.replace(
                run=task.run.replace(uid=self.uid, output=str(uri.child("out"))),
                base=task.base.replace(uri=str(uri.child("model"))),
                training_file=str(uri.child("train.jsonl")),
            ),
        )
        assert outcome.prepared is not None
        return outcome.prepared

    def task(self, prepared: Prepared) -> TrainTask:
        made = support.train_task(self.uid)
        uri = S3Uri(support.BUCKET, self.uid)
        return made.replace(
            run=made.run.replace(output=str(uri.child("out"))),
            base=made.base.replace(uri=str(uri.child("model")), context_length=64),
            dataset=prepared.dataset,
            training_examples=prepared.training_examples,
            hyperparameters=prepared.hyperparameters.replace(
                n_epochs=3, batch_size=4, learning_rate=3e-3
            ),
            nodes=1,
        )


def finish(pods: list[Pod]) -> Trained:
    assert [pod.wait() for pod in pods] == [EXIT_OK], pods[0].log
    outcome = pods[0].outcome
    assert outcome is not None
    assert outcome.trained is not None
    return outcome.trained


def test_the_versions_resume_each_other_and_train_the_same(
    version: Version, storage: Storage, tmp_path: Path
) -> None:
    """Equal rows from both orders: each part of a run is the same, whichever version trains it."""
    previous_first = train(version, storage, tmp_path / "1", *VERSIONS)
    current_first = train(version, storage, tmp_path / "2", *VERSIONS[::-1])
    assert previous_first == current_first


def train(version: Version, storage: Storage, folder: Path, first: str, second: str) -> bytes:
    """Interrupt a run of one version, resume and publish by the other, delete by the first."""
    folder.mkdir()
    version.use(first)
    run = Run(storage, f"begun-by-{first}", folder)
    task = run.task(run.prepare())
    pods = start_pods(task, folder / "first")
    wait_for(lambda: bool(checkpoint_steps(storage, task)), pods)
    pods[0].process.send_signal(signal.SIGTERM)
    assert pods[0].wait() == EXIT_PREEMPTED, pods[0].log

    version.use(second)
    task = next_attempt(task)
    pods = start_pods(task, folder / "second")
    trained = finish(pods)
    assert "resumed from the checkpoint of step " in pods[0].log

    version.use(first)
    deletion = DeletionTask(
        namespace=task.run.namespace,
        model=trained.fine_tuned_model,
        uri=trained.model_uri,
        manifest_sha256=trained.model_manifest_sha256,
        fine_tune=task.run.name,
        fine_tune_uid=task.run.uid,
    )
    deleted = run.execute("finetune_data.deletion", deletion).deleted
    assert deleted is not None
    assert deleted.files > 5
    assert storage.list(task.run.layout.model) == []
    return storage.read_bytes(task.run.layout.results)


def test_tasks_are_the_same_for_both_versions() -> None:
    for task in (prepare_task("bucket"), support.train_task("0123456789abcdef")):
        name = type(task).__name__
        assert previous.parse(f"finetune_api.tasks:{name}", task.to_json()) == task.to_json()
