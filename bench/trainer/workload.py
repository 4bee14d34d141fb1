"""The workload of every program: the weights of a small Llama, and token ids of Alpaca's lengths.

The files are arrays and a folder of safetensors, which a baseline's virtual environment can read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from finetune_data.tokenize.dataset import TokenSplit

LONGEST = 1024
MEAN, MEDIAN = 154, 119  # tokens of an example, log-normal as in Alpaca
COMPLETION = 0.63  # share of an example's tokens

# About 11 M parameters for a vocabulary of 32,000, most of them in the tied embeddings; and 0.1 M.
SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "heads": 8}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": 4}


def lengths(count: int, seed: int = 7) -> npt.NDArray[np.int64]:
    """The number of tokens of each example."""
    random = np.random.default_rng(seed)
    sigma = math.sqrt(2 * math.log(MEAN / MEDIAN))
    return np.clip(random.lognormal(math.log(MEDIAN), sigma, count), 8, LONGEST).astype(np.int64)


def examples(sizes: npt.NDArray[np.int64], vocabulary: int) -> TokenSplit:
    """Random tokens in examples of these sizes; the last part of each is the completion."""
    from finetune_data.tokenize.dataset import TokenSplit

    random = np.random.default_rng(8)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tokens = random.integers(3, vocabulary, offsets[-1]).astype(np.int32)
    roles = np.full(len(tokens), 2, np.uint8)
    for begin, size in zip(offsets, sizes, strict=False):
        roles[begin : begin + max(1, round(size * (1 - COMPLETION)))] = 1
    return TokenSplit(tokens, roles, offsets)


def write_examples(folder: Path, split: TokenSplit) -> None:
    """Write `tokens.npy`, `roles.npy`, and `offsets.npy`."""
    folder.mkdir(parents=True)
    for name in ("tokens", "roles", "offsets"):
        np.save(folder / f"{name}.npy", getattr(split, name))


def write(
    folder: Path, *, count: int, vocabulary: int, shape: dict[str, int], even: bool = False
) -> Path:
    """Write `tokens.npy`, `roles.npy`, `offsets.npy`, `model/`. even: all examples have MEAN."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = np.full(count, MEAN) if even else lengths(count)
    write_examples(folder, examples(sizes, vocabulary))
    torch.manual_seed(0)
    config: Any = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"] // 2,
        max_position_embeddings=2 * LONGEST,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    write_tokenizer(folder / "model", vocabulary)
    return folder


def read(folder: Path) -> TokenSplit:
    """The examples as a split in memory."""
    from finetune_data.tokenize.dataset import TokenSplit

    tokens, roles, offsets = (np.load(folder / f"{n}.npy") for n in ("tokens", "roles", "offsets"))
    return TokenSplit(tokens, roles, offsets.astype(np.int64))


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a tokenizer with one word per token, because both programs require one."""
    import json

    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {f"w{number}": number for number in range(vocabulary)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "w2",
        "pad_token": "w0",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
