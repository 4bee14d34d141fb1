"""The state of a model, compared bit by bit with that which transformers loads."""

from pathlib import Path
from typing import Any


def state_of_model(model: Any) -> dict[str, Any]:
    """All parameters, tied ones under each name, and all buffers, also those that no file has."""
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: tensor.detach() for name, tensor in named}


def expected_state(folder: Path, precision: str) -> dict[str, Any]:
    """The state that transformers' `from_pretrained` loads."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return state_of_model(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of tensors that are not the same in type, shape, and every bit."""
    import torch

    def bits(tensor: Any) -> Any:
        return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor

    names = sorted(found.keys() ^ expected.keys())
    for name, tensor in expected.items():
        if name in names:
            continue
        mine = found[name]
        if (mine.dtype, mine.shape) != (tensor.dtype, tensor.shape) or not torch.equal(
            bits(mine), bits(tensor)
        ):
            names.append(name)
    return names
