"""The two lifecycles of a sweep: their attempts, their results, and what they leave in S3."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from finetune_api.layout import MANIFEST
from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask, TrainTask
from finetune_api.uris import S3Uri
from finetune_data.lookup.published import ModelManifest, outcome_of
from finetune_data.models.pinning import pin_base_model
from finetune_storage.manifests import Manifest, find_damage
from finetune_storage.s3 import Storage
from finetune_trainer.run_manifest import RunManifest
from tests.data.builders import examples, jsonl, prepare_task, put_folder
from tests.support.tiny_model import make_tiny_model
from tests.trainer import support
from tests.trainer.storage_sweep.pods import Kill, Pod, run_prepare, run_rank, wait_for_all

EXAMPLES = support.random_examples(16, seed=1)
EPOCHS = 3  # of two steps; the third one deletes the checkpoint of the first
ATTEMPTS = 4  # at most, after one kill
CARD = "README.md"  # has the time of the publication
RUN_FILES = {"results.csv", "report.html", "story.json", MANIFEST, "publishing.json"}

Results = dict[str, bytes | str]


@dataclass
class Ended:
    """A lifecycle that has ended."""

    results: Results
    leftovers: list[str]
    attempts: int
    was_killed: bool
    writes: list[str] = field(default_factory=list)  # of the first attempt, in their order


class Lifecycle(Protocol):
    """`name` is the beginning of a case's name."""

    name: str

    def run(self, kill: Kill | None, number: int) -> Ended: ...


class Training:
    """Two nodes with one rank each."""

    name = "train"

    def __init__(self, storage: Storage, target: str, folder: Path) -> None:
        """target: the address of the S3 server."""
        self._storage = storage
        self._target = target
        self._folder = folder
        made = support.train_task("sweep")
        uri = S3Uri(support.BUCKET, "sweep/base")
        support.put_base_model(storage, uri, folder / "base")
        base = pin_base_model(made.base.replace(uri=str(uri)), folder / "pinned", storage)
        dataset = S3Uri(support.BUCKET, "sweep/dataset")
        splits = {"train": EXAMPLES, "validation": EXAMPLES[:8]}
        support.put_dataset(storage, dataset, folder / "data", **splits)
        self._task = made.replace(
            base=base,
            dataset=str(dataset),
            training_examples=len(EXAMPLES),
            validation_examples=8,
            hyperparameters=support.hyperparameters(n_epochs=EPOCHS),
        )

    def run(self, kill: Kill | None, number: int) -> Ended:
        run = self._task.run.replace(uid=f"{number:08d}", output=f"s3://{support.BUCKET}/sweep/out")
        task = self._task.replace(run=run)
        writes: list[str] = []
        was_killed = False
        for attempt in range(1, ATTEMPTS + 1):
            codes, pods = self._attempt(task.replace(attempt=attempt), kill, number)
            writes = writes or [write for pod in pods for write in pod.writes]
            was_killed = was_killed or any(pod.was_killed for pod in pods)
            if codes == [0, 0]:
                break
            kill = None
        else:
            raise AssertionError(f"{self._folder / str(number)}: no attempt has succeeded")
        return Ended(*self._results(task), attempt, was_killed, writes)

    def _attempt(
        self, task: TrainTask, kill: Kill | None, number: int
    ) -> tuple[list[int | None], list[Pod]]:
        prefix = task.run.layout.root.key
        with ExitStack() as stack:
            pods = [
                stack.enter_context(Pod(f"rank {rank}", self._target, prefix, kill))
                for rank in range(task.nodes)
            ]
            task = task.replace(master_port=support.free_port())
            for rank, pod in enumerate(pods):
                own = task.replace(progress_port=support.free_port())
                log = self._folder / str(number) / f"attempt-{task.attempt}-rank-{rank}"
                pod.start(run_rank, f"{rank} {own.to_json()}", log)
            return wait_for_all(pods), pods

    def _results(self, task: TrainTask) -> tuple[Results, list[str]]:
        layout, storage = task.run.layout, self._storage
        folder = self._folder / f"model-{task.run.uid}"
        storage.download_prefix(layout.model, folder)
        data = (folder / MANIFEST).read_bytes()
        manifest = ModelManifest.model_validate_json(data)
        found: Results = {f.path: f.sha256 for f in manifest.files if f.path != CARD}
        found["results.csv"] = storage.read_bytes(layout.results)
        leftovers = _unlisted(storage, layout.root, ["model", *_checkpoints(storage, task)])
        expected = RUN_FILES | {f"markers/attempt-{n}.json" for n in range(1, ATTEMPTS + 1)}
        leftovers = [name for name in leftovers if name not in expected]
        if damage := find_damage(folder, manifest.files):
            leftovers.append(f"damaged: {damage}")
        written = RunManifest.model_validate_json(storage.read_bytes(layout.manifest))
        if written.trained != outcome_of(task.run, manifest, data).trained:
            leftovers.append("the run's manifest has another result than the model's manifest")
        return found, leftovers


class Preparation:
    """The prepare pod: the check of the base model, and the data."""

    name = "prepare"

    def __init__(self, storage: Storage, target: str, folder: Path) -> None:
        self._storage = storage
        self._target = target
        self._folder = folder
        uri = S3Uri(support.BUCKET, "sweep-prepare")
        put_folder(storage, make_tiny_model(folder / "model"), uri.child("model"))
        storage.write_bytes(uri.child("train.jsonl"), jsonl([*examples(200), "no JSON"]))
        task = prepare_task(support.BUCKET)
        self._task = task.replace(
            base=task.base.replace(uri=str(uri.child("model"))),
            training_file=str(uri.child("train.jsonl")),
            data_tolerance=0.5,
        )

    def run(self, kill: Kill | None, number: int) -> Ended:
        output = S3Uri(support.BUCKET, f"sweep-prepare/out/{number}")
        task = self._task.replace(run=self._task.run.replace(output=str(output)))
        writes: list[str] = []
        was_killed = False
        for attempt in range(1, ATTEMPTS + 1):
            folder = self._folder / str(number) / f"pod-{attempt}"
            with Pod("prepare", self._target, output.key, kill) as pod:
                pod.start(run_prepare, task.to_json(), folder)
                (code,) = wait_for_all([pod])
            writes = writes or pod.writes
            was_killed = was_killed or pod.was_killed
            if code == 0:
                break
            kill = None
        else:
            raise AssertionError(f"{self._folder / str(number)}: no pod has succeeded")
        outcome = (folder / "outcome.json").read_text()
        return Ended(*self._results(task, output, outcome), attempt, was_killed, writes)

    def _results(self, task: PrepareTask, output: S3Uri, text: str) -> tuple[Results, list[str]]:
        outcome = Outcome.parse(text)
        assert outcome is not None and outcome.prepared is not None
        dataset = S3Uri.parse(outcome.prepared.dataset)
        listed = Manifest.parse_files(self._storage.read_bytes(dataset.child(MANIFEST)))
        assert listed is not None
        found: Results = {entry.path: entry.sha256 for entry in listed.files}
        report = task.run.layout.data_report
        found["outcome"] = text.replace(str(output), "")
        found["report"] = self._storage.read_bytes(report)
        leftovers = _unlisted(self._storage, output, [dataset.key[len(output.key) + 1 :]])
        checked = f"{task.run.namespace}/base-checks/"
        return found, [
            name
            for name in leftovers
            if not name.startswith(checked) and name != report.key[len(output.key) + 1 :]
        ]


def _checkpoints(storage: Storage, task: TrainTask) -> list[str]:
    start = len(task.run.layout.root.key) + 1
    entries = storage.list(task.run.layout.checkpoints)
    return sorted({entry.key[start:].rpartition("/")[0] for entry in entries})


def _unlisted(storage: Storage, root: S3Uri, prefixes: list[str]) -> list[str]:
    """The objects below the root that no manifest of a prefix lists, and unfinished uploads."""
    start = len(root.key) + 1
    names = {entry.key[start:] for entry in storage.list(root)}
    for prefix in prefixes:
        if f"{prefix}/{MANIFEST}" not in names:
            continue
        data = storage.read_bytes(root.child(prefix, MANIFEST))
        manifest = Manifest.parse_files(data)
        assert manifest is not None
        listed = {f"{prefix}/{entry.path}" for entry in manifest.files}
        missing = listed - names
        names -= {f"{prefix}/{MANIFEST}", *listed}
        names |= {f"missing: {name}" for name in missing}
    answer: Mapping[str, object] = storage._client.list_multipart_uploads(
        Bucket=root.bucket, Prefix=root.key
    )
    unfinished = answer.get("Uploads")
    return [*sorted(names), *([f"unfinished uploads: {unfinished}"] if unfinished else [])]
