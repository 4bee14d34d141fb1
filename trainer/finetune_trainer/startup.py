"""Getting a rank ready: libraries, data, model."""

import gc
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.tasks import TrainTask
from finetune_data.dataset import Dataset, DatasetManifest, open_dataset
from finetune_data.failures import FailureError
from finetune_trainer.engine import Precision
from finetune_trainer.work import WorkFolder

if TYPE_CHECKING:
    from torch.nn import Module


def import_libraries() -> None:
    """What takes seconds, while the launcher downloads; best without garbage collection."""
    import deepspeed
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    deepspeed.logger.setLevel("WARNING")
    # of torch about DeepSpeed's calls, once for each kind of call
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def read_dataset(task: TrainTask, work: WorkFolder) -> Dataset:
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


def load_model(folder: Path, precision: Precision) -> "Module":
    """Safetensors only, and no code that came with the model."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Module = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.train()
    gc.freeze()  # the libraries stay
    gc.enable()
    return model
