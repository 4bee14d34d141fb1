"""A published model with its two manifests, as the trainer writes them, without a training."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from finetune_api.outcome import EpochMetrics, Trained
from finetune_api.tasks import TrainTask
from finetune_data.lookup.published import ModelManifest, outcome_of
from finetune_data.tokenize.dataset import DatasetManifest
from finetune_storage.manifests import FileEntry, to_bytes
from finetune_storage.s3 import Storage
from finetune_trainer import run_manifest

FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"weights" * 100,
    "model-00002-of-00002.safetensors": b"others" * 100,
    "adapter/adapter_config.json": b"{}",
}

Change = Callable[[dict[str, Any]], Any]  # in place, or to the value that it returns


def publish(
    task: TrainTask,
    model_id: str,
    dataset: DatasetManifest,
    storage: Storage,
    *,
    of_run: Change = lambda raw: raw,
    of_model: Change = lambda raw: raw,
) -> Trained:
    """Publish a model of FILES. of_run, of_model: changes of the two manifests."""
    layout, manifest = task.run.layout, _model_manifest(task, model_id)
    written = _changed(to_bytes(manifest), of_model)
    trained = outcome_of(task.run, manifest, written).trained
    assert trained is not None
    provenance = run_manifest.make(task, dataset, "fp32", trained)
    for path, data in FILES.items():
        storage.write_bytes(layout.model.child(path), data)
    storage.write_bytes(layout.results, b"step,loss\n")
    storage.write_bytes(layout.manifest, _changed(to_bytes(provenance), of_run))
    storage.write_bytes(layout.model.child("manifest.json"), written)
    return trained


def _changed(data: bytes, change: Change) -> bytes:
    raw = json.loads(data)
    found = change(raw)
    return json.dumps(raw if found is None else found).encode()


def _model_manifest(task: TrainTask, model_id: str) -> ModelManifest:
    return ModelManifest(
        id=model_id,
        fine_tune=f"{task.run.namespace}/{task.run.name}",
        fine_tune_uid=task.run.uid,
        attempt=task.attempt,
        base=task.base.name,
        base_uri=task.base.uri,
        base_revision=task.base.revision,
        published="2026-11-21T12:00:00+00:00",
        dtype="float32",
        steps=80,
        trained_tokens=10_000,
        training_loss=1.25,
        first_loss=2.5,
        epochs=[EpochMetrics(epoch=1, step=80, training_loss=1.25)],
        files=[
            FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in FILES.items()
        ],
    )
