"""Two tenants, each with an S3 user: the pods of one cannot access the objects of the other.

The operator gives every pod only the credentials of its FineTune's namespace, so that the S3 server
enforces the separation. These tests show that it works, and that errors reveal no secrets.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_api.names import ENV_TASK, EXIT_OK, EXIT_USER, Reason
from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask, RunRef
from finetune_api.uris import S3Uri
from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from tests.data.builders import (
    base_model,
    examples,
    jsonl,
    prepare_task,
    put_folder,
    write_tokenizer,
)
from tests.security.s3 import Tenant, tenants
from tests.trainer import support

pytestmark = pytest.mark.integration  # versitygw is built by devcluster

CONFIDENTIAL = "the merger is on friday"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tenant, Tenant]]:
    """Each tenant has a base model and a file; the file of globex is confidential."""
    folder = tmp_path_factory.mktemp("s3")
    model = write_tokenizer(tmp_path_factory.mktemp("model"))
    with tenants(folder, "acme", "globex") as (acme, globex):
        for tenant in (acme, globex):
            storage = as_tenant(tenant)
            put_folder(storage, model, S3Uri(tenant.name, "model"))
            rows = [*examples(60), {"prompt": CONFIDENTIAL, "completion": " yes"}]
            storage.write_bytes(S3Uri(tenant.name, "train.jsonl"), jsonl(rows))
        yield acme, globex


def as_tenant(tenant: Tenant) -> Storage:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tenant.environment.items():
            patch.setenv(name, value)
        return open_storage()


@dataclass(frozen=True)
class Ended:
    """The end of a pod, with everything that is readable outside of it."""

    code: int
    outcome: Outcome
    text: str  # its log and its termination message


def prepare(tenant: Tenant, task: PrepareTask, folder: Path) -> Ended:
    """Run the prepare pod with the credentials of a tenant."""
    return _run(tenant, "finetune_data", task.to_json(), folder)


def _run(tenant: Tenant, module: str, task: str, folder: Path, *arguments: str) -> Ended:
    log = folder / "termination-log"
    done = subprocess.run(
        [sys.executable, "-m", module, "--termination-log", str(log), *arguments],
        env=dict(os.environ) | tenant.environment | {ENV_TASK: task, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    outcome = Outcome.parse(log.read_text())
    assert outcome is not None, done.stdout
    return Ended(done.returncode, outcome, done.stdout + log.read_text())


def keys(tenant: Tenant) -> list[str]:
    return [entry.key for entry in as_tenant(tenant).list(S3Uri(tenant.name, ""))]


def test_each_tenant_prepares_its_own_data(both: tuple[Tenant, Tenant], tmp_path: Path) -> None:
    for tenant in both:
        folder = tmp_path / tenant.name
        folder.mkdir()
        ended = prepare(tenant, prepare_task(tenant.name), folder)
        assert ended.code == EXIT_OK, ended.text
        assert tenant.secret not in ended.text


def foreign(**changes: object) -> PrepareTask:
    """A task of acme with a URI in the bucket of globex."""
    return prepare_task("acme", **changes)


@pytest.mark.parametrize(
    ("task", "reasons"),
    [
        (foreign(training_file="s3://globex/train.jsonl"), {Reason.S3_ACCESS_DENIED}),
        (foreign(validation_file="s3://globex/train.jsonl"), {Reason.S3_ACCESS_DENIED}),
        (
            foreign(base=base_model("s3://globex/model")),
            {Reason.S3_ACCESS_DENIED, Reason.BASE_MODEL_NOT_FOUND},
        ),
        (
            foreign(
                run=RunRef(namespace="team", name="tone", uid="0" * 16, output="s3://globex/out")
            ),
            {Reason.S3_ACCESS_DENIED},
        ),
    ],
    ids=["training file", "validation file", "model", "output"],
)
def test_access_to_the_other_tenant_is_denied_with_a_clear_message(
    both: tuple[Tenant, Tenant], tmp_path: Path, task: PrepareTask, reasons: set[str]
) -> None:
    acme, globex = both
    before = keys(globex)
    ended = prepare(acme, task, tmp_path)
    assert ended.code == EXIT_USER, ended.text
    assert ended.outcome.failure is not None
    assert ended.outcome.failure.code in reasons
    assert "s3://globex/" in ended.outcome.failure.message
    assert keys(globex) == before
    for secret in (CONFIDENTIAL, acme.secret, globex.secret):
        assert secret not in ended.text
    assert "Traceback" not in ended.text


def test_a_training_pod_cannot_read_the_dataset_of_the_other_tenant(
    both: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    acme, globex = both
    dataset = S3Uri("globex", "out/team/datasets/secret")
    support.put_dataset(
        as_tenant(globex), dataset, tmp_path / "data", train=support.random_examples(20, seed=1)
    )
    task = support.train_task(
        "mine", nodes=1, dataset=str(dataset),
        run=RunRef(namespace="team", name="tone", uid="mine", output="s3://acme/out"),
        base=base_model("s3://acme/model"),
    )  # fmt: skip
    folder = tmp_path / "pod"
    folder.mkdir()
    work = ("--work-folder", str(folder / "work"))
    ended = _run(acme, "finetune_trainer", task.to_json(), folder, *work)
    assert ended.code == EXIT_USER, ended.text
    assert ended.outcome.failure is not None
    assert ended.outcome.failure.code == Reason.S3_ACCESS_DENIED
    for tenant in both:
        assert tenant.secret not in ended.text


def test_a_wrong_secret_is_reported_but_not_shown(
    both: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    acme, _ = both
    wrong = Tenant("acme", acme.endpoint, "canary-4d1f7c0e9a")
    ended = prepare(wrong, prepare_task("acme"), tmp_path)
    assert ended.code == EXIT_USER, ended.text
    assert "canary-4d1f7c0e9a" not in ended.text
    assert "Traceback" not in ended.text
