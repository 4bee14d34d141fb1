"""The same work for every peer: a small Llama's weights, and token ids of Alpaca-like lengths.

Arrays and a folder of safetensors, so that a peer's own virtual environment can read them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LONGEST = 1024
MEAN, MEDIAN = 154, 119  # tokens of an example, log-normal (Alpaca's, as `anchors` has them)
COMPLETION = 0.63  # of an example's tokens

# About 11 M parameters at a vocabulary of 32,000, most of them in the tied table; and 0.1 M.
SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "heads": 8}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": 4}


def lengths(count: int, seed: int = 7) -> npt.NDArray[np.int64]:
    """Tokens of each example."""
    random = np.random.default_rng(seed)
    sigma = math.sqrt(2 * math.log(MEAN / MEDIAN))
    return np.clip(random.lognormal(math.log(MEDIAN), sigma, count), 8, LONGEST).astype(np.int64)


def write(
    folder: Path, *, examples: int, vocabulary: int, shape: dict[str, int], even: bool = False
) -> Path:
    """`tokens.npy`, `roles.npy`, `offsets.npy` and `model/`. even: all examples are MEAN long."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    sizes = np.full(examples, MEAN) if even else lengths(examples)
    random = np.random.default_rng(8)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    tokens = random.integers(3, vocabulary, offsets[-1]).astype(np.int32)
    roles = np.full(len(tokens), 2, np.uint8)
    for begin, size in zip(offsets, sizes, strict=False):
        roles[begin : begin + max(1, round(size * (1 - COMPLETION)))] = 1
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "roles.npy", roles)
    np.save(folder / "offsets.npy", offsets)
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


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A word for each token: both sides want one beside a model."""
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
