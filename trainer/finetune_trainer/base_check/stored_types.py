"""The types of the numbers in the files: packed and integer weights would load as nonsense."""

import re
from typing import TYPE_CHECKING

from finetune_api.errors import FailureError
from finetune_data.models.safetensors_files import StoredTensor
from finetune_data.models.skeleton import Tensors
from finetune_trainer import base_model_failures
from finetune_trainer.engine.loading import OLD_BUFFERS
from finetune_trainer.engine.weight_names import in_number_order

if TYPE_CHECKING:
    from torch.nn import Module

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
SMALL = frozenset({"I8", "U8", "F4"})  # and all F6 and F8
# The methods of quantization, by the names of the tensors that they add.
PACKED = {
    "gptq": re.compile(r"\.(g_idx|qzeros)$"),
    "awq": re.compile(r"\.qweight$"),
    "bitsandbytes": re.compile(
        r"\.(SCB|weight_format|weight\.(absmax|quant_map|nested_\w+|quant_state\..+))$"
    ),
    "compressed-tensors": re.compile(r"\.weight_(packed|shape|zero_point|global_scale|g_idx)$"),
    "mxfp4": re.compile(r"_(blocks|scales)$"),
    "fp8": re.compile(r"\.(weight_scale(_inv)?|input_scale|activation_scale)$"),
}


def packed_method(tensors: Tensors) -> tuple[str, list[str]] | None:
    """The method of quantization and the tensors that show it; None if no tensor does."""
    if all(tensor.dtype in FLOATS for tensor in tensors.values()):
        return None
    for method, pattern in PACKED.items():
        found = sorted((name for name in tensors if pattern.search(name)), key=in_number_order)
        if found:
            return method, found
    return None


def check_types(tensors: Tensors, model: "Module") -> None:
    """Raise FailureError for weights of `model` that no file holds as floating-point numbers."""
    named = model.named_parameters(remove_duplicate=False)
    weights = {name for name, parameter in named if parameter.is_floating_point()}
    buffers = {name for name, _ in model.named_buffers()}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    ignored = [re.compile(text) for text in _ignored_names(model)] + [OLD_BUFFERS]

    def is_wrong(name: str, tensor: StoredTensor) -> bool:
        if tensor.dtype in FLOATS or any(pattern.search(name) for pattern in ignored):
            return False
        names = {name, f"{prefix}{name}", name.removeprefix(prefix)}
        return not names & buffers and (bool(names & weights) or _is_small(tensor))

    wrong = [name for name, tensor in tensors.items() if is_wrong(name, tensor)]
    if not wrong:
        return
    if packed := packed_method(tensors):
        raise FailureError(base_model_failures.quantized_base(*packed))
    ordered = sorted(wrong, key=in_number_order)
    problems = [f"{name} has the type {tensors[name].dtype}" for name in ordered]
    raise FailureError(base_model_failures.integer_weights(problems))


def _ignored_names(model: "Module") -> list[str]:
    """Patterns of names in the files that transformers does not load into this model."""
    found = getattr(model, "_keys_to_ignore_on_load_unexpected", None)
    return [str(text) for text in found or ()]


def _is_small(tensor: StoredTensor) -> bool:
    """Whether it is a matrix of numbers with fewer than 16 bits, under whatever name."""
    is_packed = tensor.dtype in SMALL or tensor.dtype.startswith(("F6", "F8"))
    return is_packed and len(tensor.shape) > 1
