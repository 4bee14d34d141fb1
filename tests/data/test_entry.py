"""`python -m finetune_data` as in a pod: a process, an environment, and an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.names import (
    ENV_TASK,
    EXIT_CRASH,
    EXIT_OK,
    EXIT_PREEMPTED,
    EXIT_UNAVAILABLE,
    EXIT_USER,
    Reason,
)
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import PrepareTask
from finetune_api.uris import S3Uri
from finetune_data.prepare.main import POD
from finetune_data.termination import exit_code, finish
from finetune_data.tokenize.dataset import fetch_dataset
from finetune_storage.s3 import Storage
from tests.data.builders import base_model, examples, jsonl, prepare_task, put_folder

# The prepare image has no torch: an import of it must not even be tried with success.
WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; "
    "runpy.run_module('finetune_data', run_name='__main__', alter_sys=True)"
)


class Pod:
    """Runs the entry point with a task, and keeps its output and its termination message."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "termination-log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.output = ""

    def run(self, task: PrepareTask) -> tuple[int, Outcome]:
        places = {"TMPDIR": str(self.temporary), "HOME": "/nonexistent"}
        ran = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, "--termination-log", str(self.log)],
            env=dict(os.environ) | {ENV_TASK: task.to_json(), "PYTHONUNBUFFERED": "1"} | places,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self.output = ran.stdout
        outcome = Outcome.parse(self.log.read_text())
        assert outcome is not None, self.output
        assert list(self.temporary.iterdir()) == []
        return ran.returncode, outcome


@pytest.fixture
def pod(aws: pytest.MonkeyPatch, tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.fixture
def task(storage: Storage, bucket: str, model_folder: Path) -> PrepareTask:
    put_folder(storage, model_folder, S3Uri(bucket, "model"))
    storage.write_bytes(S3Uri(bucket, "train.jsonl"), jsonl(examples(300)))
    return prepare_task(bucket)


@pytest.mark.slow
def test_a_valid_task_writes_a_dataset_and_its_outcome(
    pod: Pod, task: PrepareTask, storage: Storage, tmp_path: Path
) -> None:
    code, outcome = pod.run(task)
    assert code == EXIT_OK, pod.output
    assert outcome.prepared is not None
    assert outcome.prepared.training_examples == 300
    dataset = fetch_dataset(S3Uri.parse(outcome.prepared.dataset), tmp_path / "fetched", storage)
    assert len(dataset.train) == 300
    assert "300 examples" in pod.output
    assert "very-secret" not in pod.output


@pytest.mark.slow
def test_a_broken_line_17_is_a_sentence_and_no_traceback(
    pod: Pod, task: PrepareTask, storage: Storage
) -> None:
    rows = [*examples(16), '{"prompt": "a" "completion": "b"}', *examples(283)]
    storage.write_bytes(S3Uri.parse(task.training_file), jsonl(rows))
    code, outcome = pod.run(task)
    assert code == EXIT_USER
    assert outcome.failure is not None
    assert outcome.failure.code == Reason.INVALID_DATA
    assert ", line 17, column 16: not valid JSON" in outcome.failure.message
    assert "failed: trainingFile" in pod.output
    assert "Traceback" not in pod.output


def test_a_missing_base_model_is_a_sentence_and_no_traceback(pod: Pod, task: PrepareTask) -> None:
    missing = task.replace(base=base_model("s3://no-such-bucket/model"))
    code, outcome = pod.run(missing)
    assert code == EXIT_USER
    assert outcome.failure is not None
    assert outcome.failure.code == Reason.BASE_MODEL_NOT_FOUND
    assert "s3://no-such-bucket/model" in outcome.failure.message
    assert "Traceback" not in pod.output


def test_a_pod_ends_at_sigterm() -> None:
    """Process 1 of a container ignores SIGTERM unless it handles it."""
    program = (
        "import finetune_data.prepare.main as entry, sys, time\n"
        "from pydantic import BaseModel\n"
        "class Anything(BaseModel): pass\n"
        "def work(task):\n"
        "    print('running', flush=True)\n"
        "    time.sleep(60)\n"
        "from dataclasses import replace\n"
        "sys.exit(replace(entry.POD, kind=Anything, work=work).main())\n"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, ENV_TASK: "{}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == EXIT_PREEMPTED


def test_an_invalid_task_is_not_an_error_of_the_user(tmp_path: Path) -> None:
    for text in ("", "{}", "[]", '{"run": 1}'):
        failure = POD.run(text).failure
        assert failure is not None
        assert exit_code(failure) == EXIT_CRASH
        assert ENV_TASK in failure.message


def test_an_unexpected_error_leaves_its_last_lines(
    aws: pytest.MonkeyPatch, task: PrepareTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("finetune_data.prepare.job.load_tokenizer", explode)
    failure = POD.run(task.to_json()).failure
    assert failure is not None
    assert failure.code == Reason.INTERNAL
    assert failure.log is not None
    assert failure.log[-1] == "KeyError: 'surprise'"


def test_a_full_volume_is_reported(
    aws: pytest.MonkeyPatch, task: PrepareTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finetune_data.prepare.job.prepare_split", full)
    failure = POD.run(task.to_json()).failure
    assert failure is not None
    assert "is full: give it more space" in failure.message


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Reason.INVALID_DATA, EXIT_USER),
        (Reason.S3_ACCESS_DENIED, EXIT_USER),
        (Reason.BASE_MODEL_INVALID, EXIT_USER),
        (Reason.S3_UNAVAILABLE, EXIT_UNAVAILABLE),
        (Reason.INTERNAL, EXIT_CRASH),
        (Reason.RANK_CRASHED, EXIT_CRASH),
    ],
)
def test_the_exit_code_belongs_to_the_reason(tmp_path: Path, code: str, expected: int) -> None:
    outcome = Outcome(failure=Failure(code=code, message="why"))
    assert finish(outcome, tmp_path / "log") == expected
    assert Outcome.parse((tmp_path / "log").read_text()) == outcome


def test_a_message_that_cannot_be_written_changes_no_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(failure=Failure(code=Reason.INVALID_DATA, message="why"))
    assert finish(outcome, tmp_path / "no" / "log") == EXIT_USER
    assert "cannot be written" in capsys.readouterr().err
