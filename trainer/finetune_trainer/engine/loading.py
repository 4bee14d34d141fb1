"""Imports the training libraries, and loads a model from a folder of safetensors."""

import gc
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_trainer.engine.deepspeed import Precision

if TYPE_CHECKING:
    from torch.nn import Module


def import_libraries() -> None:
    """Import the libraries that take seconds, while the launcher downloads.

    It is fastest with garbage collection disabled.
    """
    import deepspeed
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    deepspeed.logger.setLevel("WARNING")
    # torch warns about DeepSpeed's calls, once for each kind of call
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def load_model(folder: Path, precision: Precision) -> "Module":
    """Load safetensors only, and no code that came with the model. Enables garbage collection."""
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
    gc.freeze()  # the objects of the libraries stay: no collection needs to scan them
    gc.enable()
    return model
