"""The check container: its outcome, and the verdicts that it remembers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import ENV_TASK, EXIT_OK, EXIT_USER, Reason
from finetune_api.outcome import Outcome
from finetune_api.tasks import BaseModelRef, MethodRef, PrepareTask, RunRef
from finetune_api.uris import S3Uri
from finetune_data import pod_task
from finetune_storage.s3 import Storage
from finetune_trainer.base_check import job, main
from tests.data.builders import put_folder
from tests.trainer import support


def task_for(name: str, namespace: str = "team") -> PrepareTask:
    return PrepareTask(
        run=RunRef(namespace=namespace, name="tiny", uid="u", output=f"s3://{support.BUCKET}/bc"),
        base=BaseModelRef(
            name="ada",
            root="ada",
            uri=f"s3://{support.BUCKET}/models/{name}",
            pretraining_learning_rate=1e-3,
            context_length=1024,
        ),
        training_file="s3://tests/train.jsonl",
    )


class Log(list[str]):
    """The lines of the log."""

    def __call__(self, line: str) -> None:
        self.append(line)

    @property
    def has_checked(self) -> bool:
        """Whether the last check needed torch."""
        return self[-1] == "the base model can be trained"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(job, "log", log)
    return log


def put(storage: Storage, folder: Path, name: str, **settings: object) -> PrepareTask:
    """Upload a copy of a model with changed settings."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps(config))
    put_folder(storage, folder, S3Uri.parse(f"s3://{support.BUCKET}/models/{name}"))
    return task_for(name)


def test_a_verdict_is_remembered_for_an_equal_model_in_its_namespace(
    storage: Storage, base_model: Path, tmp_path: Path, lines: Log
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base_model, folder)
    task = put(storage, folder, "remembered")
    checks = []
    for number in range(2):
        job.check(task, storage, tmp_path / str(number))
        checks.append(lines.has_checked)
    job.check(task_for("remembered", "other-team"), storage, tmp_path / "other")
    checks.append(lines.has_checked)
    job.check(put(storage, folder, "renamed"), storage, tmp_path / "renamed")
    checks.append(lines.has_checked)
    job.check(put(storage, folder, "changed", rope_theta=5e5), storage, tmp_path / "changed")
    assert [*checks, lines.has_checked] == [True, False, True, False, True]


def test_layers_that_an_adapter_cannot_have_are_refused_before_a_gpu_is_requested(
    storage: Storage, base_model: Path, tmp_path: Path, lines: Log
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base_model, folder)
    task = put(storage, folder, "adapted", rope_theta=2e5)  # its head is the embeddings
    job.check(task, storage, tmp_path / "full")
    for targets in (["q_proj", "lm_head"], ["q_proj", "query"]):
        method = MethodRef(type="lora", targets=targets)
        with pytest.raises(FailureError) as caught:
            job.check(task.replace(method=method), storage, tmp_path / targets[1])
        failure = caught.value.failure
        assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "method.targets")
        assert targets[1] in failure.message
    method = MethodRef(type="lora", targets=["q_proj", "up_proj"])
    for is_first in (True, False):
        job.check(task.replace(method=method), storage, tmp_path / str(is_first))
        assert lines.has_checked == is_first


def test_a_verdict_that_another_check_wrote_is_not_used(
    storage: Storage, base_model: Path, tmp_path: Path, lines: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base_model, folder)
    task = put(storage, folder, "forged", rope_theta=3e5)
    job.check(task, storage, tmp_path / "first")
    root = S3Uri.parse(f"{task.run.output}/team/base-checks")
    verdicts = {entry.key: S3Uri(root.bucket, entry.key) for entry in storage.list(root)}
    good = {uri: storage.read_bytes(uri) for uri in verdicts.values()}
    for number, forged in enumerate((b"[" * 100_000, b'{"checked": "0"}')):
        for uri in good:
            storage.write_bytes(uri, forged)
        job.check(task, storage, tmp_path / f"forged-{number}")
        assert lines.has_checked
    monkeypatch.setattr(job, "versions", lambda: {"torch": "of tomorrow"})
    job.check(task, storage, tmp_path / "upgraded")
    assert lines.has_checked


def test_an_invalid_model_has_an_outcome_and_no_verdict(
    storage: Storage,
    base_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base_model, folder)
    task = put(storage, folder, "invalid", num_hidden_layers=1, layer_types=None)
    before = len(storage.list(S3Uri.parse(f"{task.run.output}/team/base-checks")))
    monkeypatch.setenv(ENV_TASK, task.to_json())
    message = tmp_path / "message"
    monkeypatch.setattr(sys, "argv", ["base_check", "--termination-log", str(message)])
    monkeypatch.setattr(pod_task.signal, "signal", lambda *_: None)
    assert main.POD.main() == EXIT_USER
    outcome = Outcome.parse(message.read_text())
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.code == Reason.BASE_MODEL_INVALID
    assert all("layers.1." in line for line in outcome.failure.lines or ["none"])
    assert "  model.layers.1.input_layernorm.weight is not in the model" in capsys.readouterr().out
    assert len(storage.list(S3Uri.parse(f"{task.run.output}/team/base-checks"))) == before


def test_a_crash_is_an_outcome(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(job, "check", crash)
    failure = main.POD.run(task_for("any").to_json()).failure
    assert failure is not None
    assert failure.code == Reason.INTERNAL
    assert "a bug" in failure.message
    assert main.POD.run("{}").failure is not None


@pytest.mark.slow
def test_the_process_ends_and_uses_no_torch_for_a_known_model(
    storage: Storage, base_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base_model, folder)
    task = put(storage, folder, "process", rope_theta=2e5)
    message = tmp_path / "message"
    program = [sys.executable, "-X", "importtime", "-m", "finetune_trainer.base_check"]
    logs = []
    for _ in range(2):
        done = subprocess.run(
            [*program, "--termination-log", str(message)],
            env=support.pod_environment(**{ENV_TASK: task.to_json()}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == EXIT_OK, done.stderr[-2000:]
        logs.append((done.stdout, "| torch\n" in done.stderr))
    assert not message.exists()
    assert [used_torch for _, used_torch in logs] == [True, False]
    assert "the base model was checked before" in logs[1][0]
