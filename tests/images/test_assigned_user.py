"""A whole FineTune by the entry points of the images, under a user ID that a cluster assigns."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from finetune_api.assignments import prepare_task, train_task, with_prepared
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.hyperparameters import HyperparameterRules
from finetune_api.limits import DataLimits
from finetune_api.names import LOCAL_BUCKET
from finetune_api.outcome import Outcome
from finetune_api.tasks import BaseModelRef, RuntimeRef
from tests.e2e.training import jsonl
from tests.images.mounting import ASSIGNED, Image, mounted
from tests.support.tiny_model import CONTEXT, make_tiny_model
from tests.trainer.support import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PREFIX = f"s3://{LOCAL_BUCKET}"
STORE = "store"  # the folder in /tmp that is the bucket
RESOLVED = Resolved(
    base=BaseModelRef(
        name="tiny",
        root="tiny",
        uri=f"{PREFIX}/tiny",
        pretraining_learning_rate=0.02,
        context_length=CONTEXT,
    ),
    runtime=RuntimeRef(name="cpu", trainer_image="t", prepare_image="p", accelerator="cpu"),
    organization="team",
    output=f"{PREFIX}/out",
    secret_name="none",
)


@contextmanager
def image(name: str) -> Iterator[Image]:
    with ExitStack() as stack:
        opened = mounted(name)
        stack.callback(opened.close)
        yield next(opened)


def finetune() -> FineTune:
    return FineTune.parse(
        {
            "metadata": {"name": "tone", "namespace": "team", "uid": "11111111-2222"},
            "spec": {
                "model": "tiny",
                "trainingFile": f"{PREFIX}/train.jsonl",
                "hyperparameters": {"nEpochs": 1, "batchSize": 8},
                "resources": {"nodes": 1, "gpusPerNode": 0},
            },
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The volume for temporary files, with a bucket in it that the user may write to."""
    store = tmp_path / STORE
    store.mkdir()
    for path in make_tiny_model(store / "tiny", hidden=64).iterdir():
        path.chmod(0o644)  # another user reads them
    (store / "train.jsonl").write_text(jsonl(32))
    store.chmod(0o777)
    return tmp_path


def outcome(folder: Path, name: str) -> Outcome:
    found = Outcome.parse((folder / name).read_text())
    assert found is not None
    assert found.failure is None, found.failure
    return found


def test_the_pods_of_a_finetune_run_under_an_assigned_user_id(folder: Path) -> None:
    own = {"FINETUNE_LOCAL_ROOT": f"/tmp/{STORE}", "FINETUNE_BASE_REVISION_FILE": "/tmp/revision"}
    task = prepare_task(finetune(), RESOLVED, HyperparameterRules(), DataLimits()).to_json()
    with image("trainer") as trainer, image("prepare") as prepare:
        trainer.run(
            *("python", "-m", "finetune_trainer.base_check", "--termination-log", "/tmp/checked"),
            user=ASSIGNED, folder=folder, FINETUNE_TASK=task, **own,
        )  # fmt: skip
        prepare.run(
            *("python", "-m", "finetune_data", "--termination-log", "/tmp/prepared"),
            user=ASSIGNED, folder=folder, FINETUNE_TASK=task, **own,
        )  # fmt: skip
        prepared = outcome(folder, "prepared").prepared
        assert prepared is not None
        assert prepared.training_examples == 32
        training = train_task(
            *(finetune(), with_prepared(RESOLVED, prepared), 1),
            micro_batch_share=1,
            master_host="127.0.0.1",
            master_port=free_port(),
            progress_port=free_port(),
        )
        trainer.run(
            *("python", "-m", "finetune_trainer", "--termination-log", "/tmp/trained"),
            user=ASSIGNED, folder=folder, FINETUNE_TASK=training.to_json(),
            JOB_COMPLETION_INDEX="0", FINETUNE_LOCAL_ROOT=own["FINETUNE_LOCAL_ROOT"],
        )  # fmt: skip
    trained = outcome(folder, "trained").trained
    assert trained is not None
    assert trained.steps == 4
    manifest = folder / STORE / trained.model_uri.removeprefix(f"{PREFIX}/") / "manifest.json"
    assert json.loads(manifest.read_text())["fineTune"] == "team/tone"
    assert manifest.stat().st_uid == int(ASSIGNED.split(":")[0])


def test_the_operator_starts_under_an_assigned_user_id() -> None:
    with image("operator") as operator:
        output = operator.run("python", "-m", "finetune_operator", "run", "--help", user=ASSIGNED)
        assert re.search(r"--settings", output)
        user = operator.run("python", "-c", "import os; print(os.getuid(), os.getgid())",
                            user=ASSIGNED)  # fmt: skip
    assert user.split() == ASSIGNED.split(":")
