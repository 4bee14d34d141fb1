"""The pods' entry point: two processes for two nodes, with real ranks, DeepSpeed, and S3."""

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path

import pytest

from finetune_api.names import EXIT_CRASH, EXIT_OK, EXIT_PREEMPTED, EXIT_USER, Reason
from finetune_api.outcome import ProgressReport
from finetune_api.tasks import ModelCacheRef, TrainTask
from finetune_api.uris import S3Uri
from finetune_data.lookup.published import ModelManifest
from finetune_data.models.base_models import fetch_base_model
from finetune_storage.manifests import find_damage
from finetune_storage.s3 import Storage
from finetune_trainer import run_manifest
from finetune_trainer.reporting.formatting import number
from tests.trainer import support
from tests.trainer.support import Pod, checkpoint_steps, start_pods

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("base_model")]

TRAINING = support.random_examples(100, seed=1)
VALIDATION = support.random_examples(20, seed=2)
STEPS_PER_EPOCH, EPOCHS = 13, 4
STEPS = STEPS_PER_EPOCH * EPOCHS


def prepared(uid: str, storage: Storage, folder: Path) -> TrainTask:
    """A FineTune whose prepare Job has ended."""
    task = support.train_task(
        uid,
        training_examples=len(TRAINING),
        validation_examples=len(VALIDATION),
        hyperparameters=support.hyperparameters(n_epochs=EPOCHS),
    )
    uri = S3Uri.parse(task.dataset)
    support.put_dataset(storage, uri, folder / "data", train=TRAINING, validation=VALIDATION)
    return task


def next_attempt(task: TrainTask, **changes: object) -> TrainTask:
    return task.replace(
        attempt=task.attempt + 1,
        master_port=support.free_port(),
        progress_port=support.free_port(),
        **changes,
    )


def wait_for(what: Callable[[], bool], pods: list[Pod], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "\n".join(pod.log for pod in pods)
        assert all(pod.process.poll() is None for pod in pods), "\n".join(p.log for p in pods)
        time.sleep(0.02)


@dataclass
class Finished:
    """A complete run, and the answers of its first pod."""

    task: TrainTask
    pods: list[Pod]
    answers: list[tuple[int, ProgressReport]] = field(default_factory=list)
    metrics: str = ""

    def ask(self) -> None:
        url = f"http://127.0.0.1:{self.task.progress_port}"
        try:
            status, body = self._progress(f"{url}/progress")
        except (OSError, HTTPException):  # it can end during its answer
            return
        self.answers.append((status, ProgressReport.model_validate_json(body)))
        if status == 200:
            with (
                contextlib.suppress(OSError, HTTPException),
                urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer,
            ):
                self.metrics = answer.read().decode()

    @staticmethod
    def _progress(url: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@pytest.fixture(scope="module")
def finished(
    storage: Storage, base_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "cache").mkdir()
    task = prepared("undisturbed", storage, folder).replace(
        model_cache=ModelCacheRef(path=str(folder / "cache"))
    )
    run = Finished(task, start_pods(task, folder))
    end = time.monotonic() + 180
    while any(pod.process.poll() is None for pod in run.pods) and time.monotonic() < end:
        run.ask()
        time.sleep(0.02)
    assert [pod.wait() for pod in run.pods] == [EXIT_OK, EXIT_OK], run.pods[0].log
    return run


def results(storage: Storage, task: TrainTask) -> list[dict[str, str]]:
    header, *rows = storage.read_bytes(task.run.layout.results).decode().splitlines()
    names = header.split(",")
    return [dict(zip(names, row.split(","), strict=True)) for row in rows]


def manifest_of(storage: Storage, task: TrainTask) -> tuple[ModelManifest, bytes]:
    data = storage.read_bytes(task.run.layout.model.child("manifest.json"))
    return ModelManifest.model_validate_json(data), data


def test_only_the_first_pod_reports_the_model(finished: Finished, storage: Storage) -> None:
    outcome = finished.pods[0].outcome
    assert outcome is not None
    assert outcome.trained is not None
    trained = outcome.trained
    manifest, data = manifest_of(storage, finished.task)
    assert trained.fine_tuned_model.startswith("ada:ft-your-org:custom-model-name-20")
    assert trained.model_uri == str(finished.task.run.layout.model)
    assert trained.model_manifest_sha256 == sha256(data).hexdigest()
    assert trained.result_files == [str(finished.task.run.layout.results)]
    assert trained.steps == STEPS
    assert trained.trained_tokens == EPOCHS * sum(len(p) + len(c) for p, c in TRAINING)
    assert trained.epochs is not None
    assert [epoch.epoch for epoch in trained.epochs] == [1, 2, 3, 4]
    assert trained.training_loss == trained.epochs[-1].training_loss
    assert manifest.fine_tune_uid == finished.task.run.uid
    assert finished.pods[1].outcome is None


def test_the_pods_of_a_node_share_one_base_model(finished: Finished) -> None:
    assert finished.task.model_cache is not None
    (cached,) = Path(finished.task.model_cache.path).rglob("model.safetensors")
    for pod in finished.pods:
        assert (pod.folder / "work" / "base-model" / cached.name).resolve() == cached
        assert "warning: the model cache" not in pod.log


def test_results_have_a_row_for_each_step(finished: Finished, storage: Storage) -> None:
    rows = results(storage, finished.task)
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert int(rows[-1]["elapsed_examples"]) == EPOCHS * len(TRAINING)
    losses = [float(row["training_loss"]) for row in rows]
    assert losses[-1] < losses[0] - 1
    evaluated = [int(row["step"]) for row in rows if row["validation_loss"]]
    assert evaluated == sorted({*range(1, STEPS + 1, 8), 13, 26, 39, 52})
    trained = finished.pods[0].outcome
    assert trained is not None
    assert trained.trained is not None
    assert trained.trained.epochs is not None
    last = trained.trained.epochs[-1].validation_loss
    assert float(rows[-1]["validation_loss"]) == pytest.approx(last)


def test_progress_is_reported_during_the_whole_run(finished: Finished) -> None:
    statuses = [status for status, _ in finished.answers]
    assert statuses == sorted(statuses, reverse=True)  # 503 until training, then 200
    assert {503, 200} == set(statuses)
    steps = [report.step for _, report in finished.answers]
    assert steps == sorted(steps)
    ready = [report for status, report in finished.answers if status == 200]
    assert {"training", "publishing"} <= {report.stage for report in ready}
    assert ready[-1].steps == STEPS
    assert ready[-1].checkpoint_step == STEPS
    assert "finetune_training_loss " in finished.metrics
    assert "finetune_tokens_per_second " in finished.metrics


def test_the_log_is_short_and_readable(finished: Finished) -> None:
    lines = finished.pods[0].log.splitlines()
    assert any(line.startswith(f"step {STEPS}/{STEPS}  epoch 4.00  loss ") for line in lines)
    assert "checkpoint saved at step 52" in lines
    assert len(lines) < 40


def test_the_last_two_checkpoints_are_kept(finished: Finished, storage: Storage) -> None:
    assert checkpoint_steps(storage, finished.task) == [39, 52]
    entries = storage.list(finished.task.run.layout.checkpoints)
    assert len(entries) == 2 * 3


def test_the_published_model_is_the_trained_one(
    finished: Finished, storage: Storage, base_model: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from tests.trainer.test_loss import batch_of, totals

    layout = finished.task.run.layout
    names = storage.download_prefix(layout.model, tmp_path)
    assert {"config.json", "generation_config.json", "tokenizer.json"} < set(names)
    others = [name for name in names if not name.endswith((".json", ".safetensors"))]
    assert others == ["README.md"]
    manifest, _ = manifest_of(storage, finished.task)
    assert find_damage(tmp_path, manifest.files) is None
    assert (tmp_path / "tokenizer.json").read_bytes() == (
        base_model / "tokenizer.json"
    ).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    batch = batch_of(VALIDATION)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(batch.inputs), use_cache=False).logits
    found = totals(batch, 0.1, logits)
    # what the training measured after its last step
    last = results(storage, finished.task)[-1]
    assert found.loss == pytest.approx(float(last["validation_loss"]), rel=1e-5)
    assert found.token_accuracy == pytest.approx(float(last["validation_token_accuracy"]))


def test_the_run_manifest_lists_data_and_versions(finished: Finished, storage: Storage) -> None:
    data = storage.read_bytes(finished.task.run.layout.manifest)
    found = run_manifest.RunManifest.model_validate_json(data)
    assert found.hyperparameters == finished.task.hyperparameters
    assert found.versions["torch"].startswith("2.")
    assert found.trained is not None
    assert found.splits["train"]["examples"] == len(TRAINING)
    assert "sha256" in json.dumps(found.dataset).lower()


def test_a_second_attempt_finds_the_model_and_replaces_nothing(
    finished: Finished, storage: Storage, tmp_path: Path
) -> None:
    before = {entry.key: entry.etag for entry in storage.list(finished.task.run.layout.root)}
    begin = time.monotonic()
    pods = start_pods(next_attempt(finished.task), tmp_path)
    assert [pod.wait() for pod in pods] == [EXIT_OK, EXIT_OK]
    assert pods[0].outcome == finished.pods[0].outcome
    assert pods[1].outcome is None
    assert time.monotonic() - begin < 20  # nothing was trained
    after = {entry.key: entry.etag for entry in storage.list(finished.task.run.layout.root)}
    assert after == before


@dataclass
class Killed:
    """A run whose second rank was killed after its first checkpoint."""

    task: TrainTask
    pods: list[Pod]
    seconds: float  # until both pods had ended


@pytest.fixture(scope="module")
def killed(storage: Storage, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    task = prepared("killed", storage, folder)
    pods = start_pods(task, folder)
    wait_for(lambda: bool(checkpoint_steps(storage, task)), pods)
    os.kill(pods[1].rank_pid, signal.SIGKILL)
    begin = time.monotonic()
    for pod in pods:
        pod.wait(60)
    return Killed(task, pods, time.monotonic() - begin)


def test_a_killed_rank_is_reported_by_its_pod_within_seconds(killed: Killed) -> None:
    print(f"both pods had ended {killed.seconds:.1f} s after the kill")
    assert killed.seconds < 15
    assert [pod.process.returncode for pod in killed.pods] == [EXIT_CRASH, EXIT_CRASH]
    cause, echo = killed.pods[1].outcome, killed.pods[0].outcome
    assert cause is not None
    assert cause.failure is not None
    assert cause.failure.code == Reason.RANK_CRASHED
    assert cause.failure.message == "rank 1 was killed by signal 9 (SIGKILL)"
    assert (cause.failure.rank, cause.failure.exit_code) == (1, 137)
    assert cause.failure.log
    assert echo is not None
    assert echo.failure is not None
    assert echo.failure.message.startswith("rank 0 lost the connection to another rank")
    assert echo.failure.exit_code == 1


def test_in_a_pod_of_two_ranks_the_one_that_was_killed_is_named(
    storage: Storage, tmp_path: Path
) -> None:
    task = prepared("two ranks a pod", storage, tmp_path)
    (pod,) = start_pods(task.replace(nodes=1, processes_per_node=2), tmp_path / "pods")
    pids = [pod.folder / "work" / f"rank-{rank}.pid" for rank in (0, 1)]
    wait_for(lambda: all(path.exists() for path in pids), [pod])
    os.kill(int(pids[1].read_text()), signal.SIGKILL)
    begin = time.monotonic()
    assert pod.wait(60) == EXIT_CRASH
    assert time.monotonic() - begin < 15
    assert pod.outcome is not None
    assert pod.outcome.failure is not None
    assert pod.outcome.failure.message == "rank 1 was killed by signal 9 (SIGKILL)"


def test_a_resumed_run_has_the_results_of_an_undisturbed_one(
    killed: Killed, finished: Finished, storage: Storage, tmp_path: Path
) -> None:
    task = next_attempt(killed.task)
    # an incomplete checkpoint, as after another crash
    half = task.run.layout.checkpoint(STEPS - 1)
    storage.write_bytes(half.child("rank-00000-of-00002.safetensors"), b"half")
    pods = start_pods(task, tmp_path)
    assert [pod.wait() for pod in pods] == [EXIT_OK, EXIT_OK], pods[0].log
    assert "resumed from the checkpoint of step " in pods[0].log
    undisturbed = storage.read_bytes(finished.task.run.layout.results)
    assert storage.read_bytes(task.run.layout.results) == undisturbed
    ours, theirs = manifest_of(storage, task)[0], manifest_of(storage, finished.task)[0]
    weights = [f for f in ours.files if f.path.endswith(".safetensors")]
    assert weights == [f for f in theirs.files if f.path.endswith(".safetensors")]
    assert ours.epochs == theirs.epochs


def test_the_report_lists_both_attempts_and_completions_before_and_after(
    killed: Killed, finished: Finished, storage: Storage
) -> None:
    undisturbed, resumed = (
        storage.read_bytes(run.task.run.layout.root.child("report.html")).decode()
        for run in (finished, killed)
    )
    for text in (undisturbed, resumed):
        assert "<h4>Before</h4>" in text
        assert "<h4>After" in text
        assert "Throughput" in text
    assert "rank 0 lost the connection to another rank" in resumed
    assert "lost the connection" not in undisturbed
    card = storage.read_bytes(killed.task.run.layout.model.child("README.md")).decode()
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_a_fine_tune_can_continue_from_a_model_with_a_card(
    finished: Finished, storage: Storage, tmp_path: Path
) -> None:
    task = finished.task
    base = task.base.replace(uri=str(task.run.layout.model))
    assert fetch_base_model(base, tmp_path, storage, weights=True) == tmp_path
    assert (tmp_path / "README.md").is_file()


def test_two_preempted_pods_then_one_then_two_again_have_one_loss_curve(
    finished: Finished, storage: Storage, tmp_path: Path
) -> None:
    task = prepared("stopped", storage, tmp_path)
    pods = start_pods(task, tmp_path / "first")

    def has_begun() -> bool:
        return "step 13/52" in pods[0].log

    wait_for(has_begun, pods)
    pods[1].process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert [pod.wait(30) for pod in pods] == [EXIT_PREEMPTED, EXIT_PREEMPTED], pods[1].log
    print(f"both pods had ended {time.monotonic() - begin:.1f} s after SIGTERM")
    steps = checkpoint_steps(storage, task)
    for pod in pods:
        assert pod.outcome is not None
        assert pod.outcome.failure is not None
        assert f"the checkpoint of step {steps[-1]} is kept" in pod.outcome.failure.message
    alone = next_attempt(task, nodes=1)
    (pod,) = start_pods(alone, tmp_path / "second")
    wait_for(lambda: "step 26/52" in pod.log, [pod])
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait(30) == EXIT_PREEMPTED, pod.log
    assert f"resumed from the checkpoint of step {steps[-1]}" in pod.log
    assert checkpoint_steps(storage, task)[-1] > steps[-1]
    pods = start_pods(next_attempt(alone, nodes=2), tmp_path / "third")
    assert [pod.wait() for pod in pods] == [EXIT_OK, EXIT_OK], pods[0].log
    ours, theirs = results(storage, task), results(storage, finished.task)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert float(row["training_loss"]) == pytest.approx(float(other["training_loss"]), abs=1e-5)


def test_a_continued_model_starts_with_the_validation_loss_of_its_base(
    finished: Finished, storage: Storage, tmp_path: Path
) -> None:
    outcome = finished.pods[0].outcome
    assert outcome is not None
    assert outcome.trained is not None
    task = prepared("continued", storage, tmp_path)
    parent = outcome.trained.fine_tuned_model
    base = task.base.replace(name=parent, uri=outcome.trained.model_uri)
    task = task.replace(base=base, hyperparameters=support.hyperparameters(n_epochs=1))
    pods = start_pods(task, tmp_path / "pods")
    assert [pod.wait() for pod in pods] == [EXIT_OK, EXIT_OK], pods[0].log
    assert pods[0].outcome is not None
    assert pods[0].outcome.trained is not None
    before = pods[0].outcome.trained.before
    assert outcome.trained.epochs is not None
    last = outcome.trained.epochs[-1]
    assert before is not None
    assert before.validation_loss == pytest.approx(last.validation_loss, abs=1e-5)
    assert before.validation_token_accuracy == last.validation_token_accuracy
    assert f"before the first step: validation loss {last.validation_loss:.4f}" in pods[0].log
    page = storage.read_bytes(task.run.layout.report).decode()
    assert f"whole file; {number(last.validation_loss)} before" in page
    assert outcome.trained.before is None


def test_a_learning_rate_that_is_too_high_is_a_user_error(storage: Storage, tmp_path: Path) -> None:
    task = prepared("nan", storage, tmp_path)
    task = task.replace(
        nodes=1,
        hyperparameters=support.hyperparameters(learning_rate=1e30, weight_decay=1.0),
    )
    (pod,) = start_pods(task, tmp_path)
    assert pod.wait() == EXIT_USER, pod.log
    assert pod.outcome is not None
    assert pod.outcome.failure is not None
    assert pod.outcome.failure.code == Reason.NAN_LOSS
    assert pod.outcome.failure.param == "hyperparameters.learningRateMultiplier"
    rows = results(storage, task)
    assert rows  # what was measured before is kept
    report = storage.read_bytes(task.run.layout.root.child("report.html")).decode()
    assert "NaNLoss" in report
    assert "Lower the learning rate" in report


def test_a_pod_without_a_gpu_names_the_cause_and_not_a_crash(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as in a container without the NVIDIA runtime
    task = prepared("no-gpu", storage, tmp_path).replace(nodes=1, accelerator="nvidia")
    (pod,) = start_pods(task, tmp_path)
    assert pod.wait() == EXIT_CRASH, pod.log
    assert pod.outcome is not None and pod.outcome.failure is not None
    failure = pod.outcome.failure
    assert (failure.code, failure.rank) == (Reason.GPU_UNUSABLE, 0)
    assert "the container" in failure.message
    assert failure.hint is not None and "nvidia-smi" in failure.hint


def test_a_base_model_that_was_replaced_after_its_check_is_refused_and_not_a_crash(
    storage: Storage, tmp_path: Path
) -> None:
    uri = S3Uri.parse(f"s3://{support.BUCKET}/models/replaced")
    support.put_base_model(storage, uri, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text()) | {"is_causal": False}
    storage.write_bytes(uri.child("config.json"), json.dumps(config).encode())
    task = prepared("replaced", storage, tmp_path)
    task = task.replace(nodes=1, base=task.base.replace(uri=str(uri)))
    (pod,) = start_pods(task, tmp_path)
    assert pod.wait() == EXIT_USER, pod.log
    assert pod.outcome is not None and pod.outcome.failure is not None
    assert pod.outcome.failure.code == Reason.BASE_MODEL_INVALID
    assert "is not a causal language model" in pod.outcome.failure.message
    assert not checkpoint_steps(storage, task)
