"""Getting a rank ready: libraries, data, model."""

import warnings

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.tasks import TrainTask
from finetune_data.tokenize.dataset import Dataset, DatasetManifest, open_dataset
from finetune_trainer.workdir import WorkDir


def import_libraries() -> None:
    """What takes seconds, while the launcher downloads; best without garbage collection."""
    import deepspeed
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    deepspeed.logger.setLevel("WARNING")
    # of torch about DeepSpeed's calls, once for each kind of call
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def read_dataset(task: TrainTask, work: WorkDir) -> Dataset:
    """Fetched and checked by the launcher. Raises FailureError where it is not the task's."""
    manifest = DatasetManifest.model_validate_json((work.dataset / MANIFEST).read_text())
    dataset = open_dataset(work.dataset, manifest)
    found = len(dataset.train), len(dataset.validation or ())
    if found != (task.training_examples, task.validation_examples):
        raise FailureError.of(
            Reason.INTERNAL,
            f"the dataset has {found[0]} training and {found[1]} validation examples where the "
            f"task says {task.training_examples} and {task.validation_examples}: it was prepared "
            "again meanwhile",
        )
    return dataset
