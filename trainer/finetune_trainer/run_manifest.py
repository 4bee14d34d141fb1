"""Writes `manifest.json` of a run: its model, data, hyperparameters, and software versions."""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from finetune_api.outcome import Trained
from finetune_api.tasks import TrainTask
from finetune_data.lookup.provenance import RunManifest
from finetune_data.tokenize.dataset import DatasetManifest
from finetune_storage.manifests import to_bytes
from finetune_storage.s3 import Storage

PACKAGES = (
    "finetune-operator",
    "torch",
    "deepspeed",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
)


def versions() -> dict[str, str]:
    """The versions of Python and of PACKAGES."""
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # not installed, for example run from a source tree
    return found


def make(
    task: TrainTask, dataset: DatasetManifest, precision: str, trained: Trained | None = None
) -> RunManifest:
    """The manifest of this attempt. trained: the result, once there is one."""
    return RunManifest(
        run=task.run,
        attempt=task.attempt,
        base=task.base,
        hyperparameters=task.hyperparameters,
        method=task.method,
        dataset=dataset.source.to_dict(),
        splits={name: counts.to_dict() for name, counts in dataset.splits.items()},
        training_files=dataset.training_files,
        nodes=task.nodes,
        processes_per_node=task.processes_per_node,
        accelerator=task.accelerator,
        zero_stage=task.zero_stage,
        precision=precision,
        versions=versions(),
        trained=trained,
    )


def write(
    task: TrainTask,
    dataset: DatasetManifest,
    precision: str,
    storage: Storage,
    trained: Trained | None = None,
) -> None:
    """Write the manifest: at the start of each attempt, and again with the result."""
    manifest = make(task, dataset, precision, trained)
    storage.write_bytes(task.run.layout.manifest, to_bytes(manifest))
