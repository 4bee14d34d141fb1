"""The lookup of a published model by the pod that follows the deletion of a Job."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.names import (
    ENV_TASK,
    EXIT_CRASH,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    EXIT_USER,
    Reason,
)
from finetune_api.outcome import Outcome
from finetune_api.tasks import LookupTask, RunRef
from finetune_data.lookup.job import POD
from finetune_data.termination import exit_code
from finetune_storage.s3 import Storage

UID = "11111111-2222-3333-4444-555555555555"
MANIFEST: dict[str, Any] = {  # as the previous version wrote it
    "kind": "model",
    "id": "ada:ft-team:tone-2026-11-21-12-00-00",
    "fineTune": "team/tone",
    "fineTuneUid": UID,
    "attempt": 2,
    "base": "ada",
    "baseUri": "s3://bucket/models/ada",
    "published": "2026-11-21T12:00:00+00:00",
    "dtype": "float32",
    "steps": 50,
    "trainedTokens": 10_000,
    "trainingLoss": 1.25,
    "epochs": [{"epoch": 1, "step": 50, "trainingLoss": 1.25}],
    "files": [{"path": "config.json", "size": 5, "sha256": "0" * 64}],
}


def a_task(bucket: str) -> LookupTask:
    return LookupTask(
        run=RunRef(namespace="team", name="tone", uid=UID, output=f"s3://{bucket}/out")
    )


def publish(storage: Storage, task: LookupTask, data: bytes) -> None:
    storage.write_bytes(task.run.layout.model.child("manifest.json"), data)


def test_the_model_is_found_with_everything_that_rank_0_reports(
    aws: pytest.MonkeyPatch, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    task, data = a_task(bucket), json.dumps(MANIFEST).encode()
    publish(storage, task, data)
    word = tmp_path / "termination-log"
    aws.setenv(ENV_TASK, task.to_json())
    aws.setenv("FINETUNE_TERMINATION_LOG", str(word))
    aws.setattr("sys.argv", ["lookup"])
    assert POD.main() == EXIT_OK
    outcome = Outcome.parse(word.read_text())
    assert outcome is not None and outcome.trained is not None
    assert outcome.trained.fine_tuned_model == MANIFEST["id"]
    assert outcome.trained.model_uri == f"s3://{bucket}/out/team/tone-11111111/model"
    assert outcome.trained.result_files == [f"s3://{bucket}/out/team/tone-11111111/results.csv"]
    assert outcome.trained.model_manifest_sha256 == hashlib.sha256(data).hexdigest()
    assert (outcome.trained.steps, outcome.trained.trained_tokens) == (50, 10_000)


@pytest.mark.parametrize(
    ("data", "reason", "code"),
    [
        (None, Reason.DATA_NOT_FOUND, EXIT_USER),
        (b"{}", Reason.INTERNAL, EXIT_CRASH),
        (json.dumps(MANIFEST | {"fineTuneUid": "another"}), Reason.FOREIGN_OBJECT, EXIT_CRASH),
    ],
)
def test_the_pod_says_why_there_is_no_model(
    aws: pytest.MonkeyPatch,
    storage: Storage,
    bucket: str,
    data: bytes | str | None,
    reason: str,
    code: int,
) -> None:
    task = a_task(bucket)
    if data is not None:
        publish(storage, task, data.encode() if isinstance(data, str) else data)
    failure = POD.run(task.to_json()).failure
    assert failure is not None and failure.code == reason
    assert str(task.run.layout.model) in failure.message
    assert exit_code(failure) == code


def test_a_store_that_does_not_answer_is_not_a_missing_model(
    aws: pytest.MonkeyPatch, bucket: str
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws.setenv("AWS_MAX_ATTEMPTS", "1")
    failure = POD.run(a_task(bucket).to_json()).failure
    assert failure is not None and exit_code(failure) == EXIT_UNAVAILABLE


def test_another_task_is_refused() -> None:
    failure = POD.run("{}").failure
    assert failure is not None and failure.code == Reason.INTERNAL
