"""The tokens at which a fine-tuned model stops: those that it has learned, then the base model's.

A chat template can end a turn with another token than the one that the base model's configuration
names, such as `<|im_end|>` instead of `<|endoftext|>`. Servers stop at the tokens in
generation_config.json and at the tokenizer's own, so the published model has to name all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from finetune_data.models.base_models import CONFIG, read_json, text_settings
from finetune_data.read.examples import COMPLETION
from finetune_data.tokenize.dataset import Dataset, TokenSplit
from finetune_data.tokenize.tokenizer import ExampleTokenizer

GENERATION = "generation_config.json"
CHUNK = 1 << 24  # tokens that are looked at together
LOOKED_AT = 1 << 27  # tokens of the training split: a billion would take seconds


def valid_tokens(value: object, vocabulary: int | None) -> list[int]:
    """The token ids in a value of a config, which is an id or a list. Anything else is left out.

    vocabulary: the number of rows of the embedding; None: unknown.
    """
    found = value if isinstance(value, list) else [value]
    return [
        token
        for token in found
        if isinstance(token, int)
        and not isinstance(token, bool)
        and token >= 0
        and (vocabulary is None or token < vocabulary)
    ]


def vocabulary_size(folder: Path) -> int | None:
    """The number of rows of the model's embedding; None if its config does not have it."""
    found = text_settings(read_json(folder / CONFIG)).get("vocab_size")
    return found if isinstance(found, int) and found > 0 else None


def configured_ends(folder: Path) -> list[int]:
    """The valid end tokens in generation_config.json and config.json, in this order."""
    vocabulary, config = vocabulary_size(folder), read_json(folder / CONFIG)
    sources = (read_tolerantly(folder / GENERATION), config, text_settings(config))
    return _unique(
        token
        for source in sources
        for token in valid_tokens(source.get("eos_token_id"), vocabulary)
    )


def end_tokens(folder: Path, dataset: Dataset, tokenizer: ExampleTokenizer) -> list[int]:
    """The tokens that end a completion of the fine-tuned model; the learned ones are first.

    A token that also occurs inside learned answers is left out if another one ends them: a server
    would cut the answers there.

    folder: of the base model. tokenizer: its tokenizer.
    """
    learned = [end.token for end in dataset.manifest.ends]
    if not learned:  # an earlier version prepared the dataset
        learned = _observed_ends(dataset.train, {tokenizer.eos, *tokenizer.added_tokens})
    base = [*configured_ends(folder), tokenizer.eos]
    inside = _tokens_inside(dataset.train, {*learned, *base})
    kept = [token for token in learned if token not in inside] or learned or [tokenizer.eos]
    return _unique([*kept, *(token for token in base if token not in inside)])


def _observed_ends(split: TokenSplit, known: Collection[int]) -> list[int]:
    """The tokens of `known` that end the learned runs of the split, the most frequent first."""
    counts: dict[int, int] = {}
    for tokens, is_learned, continues in _chunks(split):
        found, times = np.unique(tokens[is_learned & ~continues], return_counts=True)
        for token, count in zip(found.tolist(), times.tolist(), strict=True):
            counts[token] = counts.get(token, 0) + count
    return sorted((token for token in counts if token in known), key=lambda token: -counts[token])


def _tokens_inside(split: TokenSplit, wanted: Collection[int]) -> set[int]:
    """Those of the tokens after which a learned run continues."""
    found: set[int] = set()
    for tokens, is_learned, continues in _chunks(split):
        inside = tokens[is_learned & continues]
        found |= set(inside[np.isin(inside, list(wanted))].tolist())
    return found


def _chunks(split: TokenSplit) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Tokens, whether each is learned, and whether the next one of its example is learned, too."""
    total = min(len(split.tokens), LOOKED_AT)
    last_ones = split.offsets[1:] - 1
    for start in range(0, total, CHUNK):
        end = min(total, start + CHUNK)
        is_learned = split.roles[start : end + 1] == COMPLETION
        continues = np.zeros(end - start, bool)
        continues[: len(is_learned) - 1] = is_learned[1 : end - start + 1]
        low, high = np.searchsorted(last_ones, (start, end))
        continues[last_ones[low:high] - start] = False
        yield split.tokens[start:end], is_learned[: end - start], continues


def read_tolerantly(path: Path) -> dict[str, object]:
    """A JSON object; {} for anything else, which transformers ignores, too."""
    try:
        return read_json(path)
    except ValueError:
        return {}


def _unique(tokens: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(tokens))
