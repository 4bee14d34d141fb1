"""Models with random weights, made on the device, and examples of random tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.gpu.device import Device
from bench.trainer import workload

if TYPE_CHECKING:
    from torch.nn import Module

Sizes = npt.NDArray[np.int64]

# The shapes of the models of the Llama 3 family.
LLAMA = {"vocab_size": 128_256, "num_key_value_heads": 8, "max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, Any]] = {
    "100M": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "vocab_size": 32_000,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "1B": LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "3B": LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "tie_word_embeddings": True,
    },
    "8B": LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
}
# The rehearsal's: with grouped heads, too, and with the embeddings of the real one.
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def configuration(name: str, *, is_tiny: bool = False) -> Any:
    """The configuration of a shape in SHAPES."""
    from transformers import LlamaConfig

    shape = SHAPES[name]
    return LlamaConfig(**(shape | TINY if is_tiny else shape), **SPECIAL)


def random_model(device: Device, name: str, precision: str = "bf16") -> Module:
    """A model in training mode, on the device."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device.kind):
        model: Module = AutoModelForCausalLM.from_config(
            configuration(name, is_tiny=device.is_rehearsal),
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
    return model.train()


def sizes(device: Device, length: int | None, tokens: int) -> Sizes:
    """The lengths of examples with about `tokens` tokens in all; None: as in Alpaca.

    A rehearsal divides by 32.
    """
    scale = device.pick(1, 32)
    mean = workload.MEAN if length is None else length
    count = max(4, math.ceil(tokens / mean))
    if length is None:
        return np.maximum(4, workload.lengths(count) // scale)
    return np.full(count, length // scale)


def write_pod_inputs(device: Device, name: str, lengths: Sizes) -> Path:
    """Write a model and examples to a folder, as a TRL process or a pod reads them."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = device.folder / "inputs"
    model: Any = random_model(device, name)
    vocabulary = int(model.config.vocab_size)
    workload.write_examples(folder, workload.examples(lengths, vocabulary))
    model.save_pretrained(folder / "model")
    workload.write_tokenizer(folder / "model", vocabulary)
    del model
    device.free()
    return folder
