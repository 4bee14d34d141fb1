"""Loads a model from a folder of safetensors."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_trainer.engine.deepspeed import Precision

if TYPE_CHECKING:
    from torch.nn import Module


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
