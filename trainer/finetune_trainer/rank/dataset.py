"""Opens the dataset that the launcher downloaded."""

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST
from finetune_api.tasks import TrainTask
from finetune_data.tokenize.dataset import Dataset, DatasetManifest, open_dataset
from finetune_trainer import failures
from finetune_trainer.workdir import WorkDir


def read_dataset(task: TrainTask, workdir: WorkDir) -> Dataset:
    """Raises FailureError if the dataset does not have the task's numbers of examples.

    The launcher has checked the files against the digests of the manifest.
    """
    manifest = DatasetManifest.model_validate_json((workdir.dataset / MANIFEST).read_text())
    dataset = open_dataset(workdir.dataset, manifest)
    found = len(dataset.train), len(dataset.validation or ())
    expected = task.training_examples, task.validation_examples
    if found != expected:
        raise FailureError(failures.dataset_replaced(found, expected))
    return dataset
