"""Tokenizers of the kinds that chat models have, trained on a few words within milliseconds."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

_WORDS = (
    "the parcel is on its way and will be there by noon please return it within ten days invoice "
    "was paid twice we are sorry about delay your account open again what can I do for you weather "
    "in Lyon mild today yes no red blue green number one two three four five system user assistant "
    "model tool call result think answer question name arguments city"
)
WORDS = _WORDS.split()
_OTHERS = (
    *("", "1234567", "café", '{"a": 1}', '[{"type": "function", "function": {"name": "forecast"'),
    '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]',
    '\n{"name": "forecast", "arguments": {"city": "Lyon"}}\n',
    '[\n    {\n        "name": "forecast",\n            "city": "Lyon"\n                "a"\n',
)
BYTES = [f"<0x{number:02X}>" for number in range(256)]
SPLIT = (  # words with the space before them, up to three digits, line ends with the spaces before
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _texts(count: int = 400) -> Iterator[str]:
    chosen = random.Random(1)  # the same texts in every run
    for _ in range(count):
        words = " ".join(chosen.choices(WORDS, k=chosen.randint(4, 12)))
        ending = chosen.choice([".", "?", "!", ",\n", "\n\n", ": "])
        yield words.capitalize() + ending + chosen.choice(_OTHERS)


@cache
def _byte_level_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _texts(),
        trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer.to_str()


@cache
def _sentencepiece_model() -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<unk>", *BYTES], show_progress=False
    )
    tokenizer.train_from_iterator((text.replace("\n", " ") for text in _texts()), trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model | {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}


def byte_level(
    *special: str,
    plain: Sequence[str] = (),
    bos: str = "",
    strips: tuple[bool, bool] = (False, False),
) -> Tokenizer:
    """BPE over bytes, as in Llama 3 and Qwen.

    special: added tokens with the flag `special`; plain: added tokens without it
    bos: the token that the post-processor puts before a text
    strips: whether special tokens take the white space to their left and right
    """
    tokenizer = Tokenizer.from_str(_byte_level_json())
    return _with_tokens(tokenizer, special, plain, bos, strips)


def sentencepiece(
    *special: str,
    scheme: str,
    plain: Sequence[str] = (),
    bos: str = "",
    strips: tuple[bool, bool] = (False, False),
) -> Tokenizer:
    """BPE with byte fallback and `▁` for a space, as in Llama 2, Mistral, and Gemma.

    scheme: where a space is put before a text: "legacy" (by the normalizer, after every special
        token too), "first", "always", or "never"
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    rest: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if scheme == "legacy":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    elif scheme == "never":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme=scheme, split=False
        )
    if scheme != "never":
        rest.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(rest)
    whole = json.loads(tokenizer.to_str()) | {"model": _sentencepiece_model()}
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    return _with_tokens(tokenizer, ("<unk>", *special), plain, bos, strips)


def _with_tokens(
    tokenizer: Tokenizer,
    special: Sequence[str],
    plain: Sequence[str],
    bos: str,
    strips: tuple[bool, bool],
) -> Tokenizer:
    left, right = strips
    tokenizer.add_special_tokens(
        [AddedToken(text, lstrip=left, rstrip=right, normalized=False) for text in special]
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in plain])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    return tokenizer
