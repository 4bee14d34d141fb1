"""LoRA: adds an adapter to the linear layers, writes it, and merges it into the base model.

Only this file imports peft, which takes seconds that a full fine-tune does not need to spend.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.errors import FailureError
from finetune_api.tasks import MethodRef
from finetune_data.failures import no_dropout_of_experts
from finetune_trainer import failures
from finetune_trainer.engine.adapter_settings import read_settings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

FOLDER = "adapter"  # in the folder of the merged model
WEIGHTS = "adapter_model.safetensors"
SHOWN = 20  # names of layers in an error


def add_adapter(model: "Module", method: MethodRef, seed: int) -> "Module":
    """Add a LoRA adapter to the model, and freeze the model's own weights.

    seed: for the adapter's initial weights, the same on every rank and in every attempt. Raises
    FailureError (InvalidSpec) if `method.targets` names a layer that does not exist, or one that
    shares its weights with another, or if peft cannot drop inputs of the layers.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=method.targets or "all-linear",
        task_type="CAUSAL_LM",
    )
    check_targets(model, method.targets)
    # no fp32 copies: the engine sets the precision
    try:
        adapted: Module = get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        if method.dropout and "dropout" in str(error):
            raise FailureError(no_dropout_of_experts()) from error
        raise
    return adapted


def check_targets(model: "Module", targets: Sequence[str] | None) -> None:
    """Raise FailureError (InvalidSpec) for layers that an adapter cannot have.

    model: also without memory for its weights. targets: None for all linear layers but the head.
    """
    linear = linear_layers(model)
    unknown = [name for name in targets or () if name not in linear]
    if unknown:
        raise FailureError(failures.unknown_layers(unknown, sorted(linear)[:SHOWN]))
    shared = shared_layers(model) & set(targets or ())
    if shared:
        raise FailureError(failures.shared_layers(sorted(shared)))


def linear_layers(model: "Module") -> set[str]:
    """The last parts of the names of the linear layers: `q_proj`, `down_proj`, ..."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, Linear | Conv1D)
    }


def shared_layers(model: "Module") -> set[str]:
    """The last parts of the names of layers with the same weights: `lm_head`, `embed_tokens`."""
    owners: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer = name.rpartition(".")[0]
        owners.setdefault(id(parameter), set()).add(layer.rpartition(".")[2])
    return set().union(*(names for names in owners.values() if len(names) > 1))


def is_adapted(model: "Module") -> bool:
    return hasattr(model, "peft_config")


def adapter_names(model: Any, weights: dict[str, "Tensor"]) -> dict[str, str]:
    """The names of the adapter's weights in peft's file, by their names in the model.

    weights: all trained ones by name. Their values do not matter.
    """
    from peft import get_peft_model_state_dict

    names = {id(weight): name for name, weight in weights.items()}
    found = get_peft_model_state_dict(model, state_dict=dict(weights))
    return {names[id(weight)]: name for name, weight in found.items()}


def write_config(model: Any, folder: Path) -> None:
    """Write the adapter's configuration in peft's layout."""
    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode = True
    config.base_model_name_or_path = ""  # a path in this pod has no meaning elsewhere
    for name, value in vars(config).items():
        if isinstance(value, set):  # its order differs between two processes
            setattr(config, name, sorted(value))
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)


def merge(base: "Module", adapter: Path) -> "Module":
    """Add the adapter's products to the weights of the base model, in the base's precision.

    Raises FailureError for a configuration of the adapter that asks for more than LoRA.
    """
    from peft import LoraConfig, PeftModel

    config = LoraConfig(**read_settings(adapter))
    merged: Module = PeftModel.from_pretrained(base, str(adapter), config=config).merge_and_unload()
    return merged
