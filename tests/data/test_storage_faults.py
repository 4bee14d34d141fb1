"""Errors of S3 at any request of the prepare Job: a retry, or an end with its reason.

Never a dataset that is half there: its manifest is written last. Numbers: reliability table (T27).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from finetune_api.names import EXIT_OK, EXIT_UNAVAILABLE, EXIT_USER, Reason
from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask
from finetune_api.uris import S3Uri
from finetune_data.prepare.main import POD
from finetune_data.termination import exit_code
from finetune_storage.s3 import Storage
from tests.data.builders import examples, jsonl, prepare_task, put_folder
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

pytestmark = pytest.mark.slow

SLOW_DOWN = s3_error(503, "SlowDown")


@pytest.fixture
def proxy(s3_endpoint: str, aws: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy between the prepare Job and S3."""
    with FaultyProxy(s3_endpoint) as made:
        aws.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


@pytest.fixture
def task(storage: Storage, bucket: str, model_folder: object) -> PrepareTask:
    put_folder(storage, model_folder, S3Uri(bucket, "model"))  # type: ignore[arg-type]
    storage.write_bytes(S3Uri(bucket, "train.jsonl"), jsonl(examples(300)))
    return prepare_task(bucket)


def complete_datasets(storage: Storage, task: PrepareTask) -> list[str]:
    """The prefixes with a manifest; each of its files must be there, with its size."""
    root = S3Uri.parse(task.run.output).child("team/datasets")
    sizes = {entry.key: entry.size for entry in storage.list(root)}
    found = [key.removesuffix("/manifest.json") for key in sizes if key.endswith("/manifest.json")]
    for prefix in found:
        manifest = json.loads(storage.read_bytes(S3Uri(root.bucket, f"{prefix}/manifest.json")))
        for file in manifest["files"]:
            assert sizes[f"{prefix}/{file['path']}"] == file["size"]
    return found


def tidy(storage: Storage, task: PrepareTask) -> None:
    root = S3Uri.parse(task.run.output)
    for entry in storage.list(root):
        storage.delete(S3Uri(root.bucket, entry.key))


def at(number: int, fault: Fault, *, for_ever: bool = False) -> tuple[Rule, list[Seen]]:
    """A rule with a fault for request `number` (from 1), or from then on, and its requests."""
    asked: list[Seen] = []

    def rule(seen: Seen) -> Fault | None:
        asked.append(seen)
        hits = len(asked) >= number if for_ever else len(asked) == number
        return fault if hits else None

    return rule, asked


def ask(proxy: FaultyProxy, task: PrepareTask, rule: Rule = let_pass) -> Outcome:
    proxy.rule = rule
    outcome = POD.run(task.to_json())
    proxy.rule = let_pass
    return outcome


@pytest.fixture
def requests(proxy: FaultyProxy, task: PrepareTask, storage: Storage) -> list[Seen]:
    """The requests of a run without faults, whose dataset is deleted again."""
    rule, asked = at(0, Cut())
    outcome = ask(proxy, task, rule)
    assert outcome.failure is None, outcome.failure
    assert len(complete_datasets(storage, task)) == 1
    tidy(storage, task)
    return asked


@pytest.mark.parametrize("fault", [SLOW_DOWN, s3_error(500, "InternalError"), Cut()])
def test_one_bad_answer_at_any_request_changes_nothing(
    fault: Answer | Cut,
    proxy: FaultyProxy,
    task: PrepareTask,
    storage: Storage,
    requests: list[Seen],
) -> None:
    for number in range(1, len(requests) + 1):
        rule, _ = at(number, fault)
        outcome = ask(proxy, task, rule)
        assert outcome.failure is None, (requests[number - 1], outcome.failure)
        assert len(complete_datasets(storage, task)) == 1
        tidy(storage, task)


@pytest.mark.parametrize(
    ("fault", "reason", "code"),
    [
        (SLOW_DOWN, Reason.S3_UNAVAILABLE, EXIT_UNAVAILABLE),
        (s3_error(403, "AccessDenied"), Reason.S3_ACCESS_DENIED, EXIT_USER),
    ],
)
def test_a_permanent_error_of_any_write_leaves_no_dataset_and_the_next_attempt_writes_one(
    fault: Answer,
    reason: str,
    code: int,
    proxy: FaultyProxy,
    task: PrepareTask,
    storage: Storage,
    requests: list[Seen],
) -> None:
    writes = [index for index, seen in enumerate(requests, 1) if seen.number]
    assert writes
    for number in writes:
        rule, _ = at(number, fault, for_ever=True)
        outcome = ask(proxy, task, rule)
        assert outcome.failure is not None
        assert (outcome.failure.code, exit_code(outcome.failure)) == (reason, code)
        assert complete_datasets(storage, task) == []
    again = ask(proxy, task)
    assert exit_code(again.failure) == EXIT_OK
    assert len(complete_datasets(storage, task)) == 1


def test_a_bucket_that_disappears_during_the_job_is_named(
    proxy: FaultyProxy, task: PrepareTask, requests: list[Seen]
) -> None:
    gone = s3_error(404, "NoSuchBucket")
    first_write = next(index for index, seen in enumerate(requests, 1) if seen.number)
    rule, _ = at(first_write, gone, for_ever=True)
    failure = ask(proxy, task, rule).failure
    assert failure is not None
    assert exit_code(failure) == EXIT_USER
    assert S3Uri.parse(task.run.output).bucket in failure.message


def test_slow_s3_is_waited_for(
    proxy: FaultyProxy, task: PrepareTask, storage: Storage, requests: list[Seen]
) -> None:
    outcome = ask(proxy, task, lambda _: Delay(0.2))
    assert outcome.failure is None
    assert len(complete_datasets(storage, task)) == 1
