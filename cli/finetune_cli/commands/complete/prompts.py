"""Encodes a prompt to exactly the tokens that precede a completion in the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    from finetune_data.tokenize.encoded import Encoded
    from finetune_data.tokenize.tokenizer import ExampleTokenizer

PLACEHOLDER = "x"  # in place of the completion


class Prompt(NamedTuple):
    """The tokens of the prompt, and the tokens that end its completion."""

    tokens: list[int]
    end_tokens: frozenset[int]


def with_separator(text: str, separator: str) -> str:
    """`text` with the separator exactly once at its end, with or without spaces around it."""
    if text.endswith(separator):
        return text
    mark = separator.strip()
    trimmed = text.rstrip()
    if mark and trimmed.endswith(mark):
        text = trimmed.removesuffix(mark).rstrip()
    return text + separator


def of_text(tokenizer: ExampleTokenizer, text: str, folder: Path) -> Prompt:
    """Encode a text like the `prompt` of a training file."""
    from finetune_data.read.examples import COMPLETION, Row
    from finetune_data.read.findings import Finding

    [found] = tokenizer.encode([Row(1, text, PLACEHOLDER)])
    assert not isinstance(found, Finding)
    [example] = found
    start = example.roles.index(bytes([COMPLETION]))
    return Prompt(example.tokens[:start], _ends(example, folder))


def of_messages(
    tokenizer: ExampleTokenizer, messages: Sequence[tuple[str, str]], folder: Path
) -> Prompt:
    """Encode (role, text) messages with the chat template of the model."""
    from finetune_data.read.examples import Conversation
    from finetune_data.read.findings import Finding

    written = [{"role": role, "content": text} for role, text in messages]
    answer = {"role": "assistant", "content": PLACEHOLDER}
    prompt = tokenizer.prompt(Conversation(1, written))
    [answered] = tokenizer.encode([Conversation(1, [*written, answer])])
    for found in (prompt, answered):
        if isinstance(found, Finding):
            raise CommandError(
                found.message, "the chat template of the model rejects these messages"
            )
    assert not isinstance(prompt, Finding)
    assert not isinstance(answered, Finding)
    return Prompt(prompt, _ends(answered[-1], folder))


def _ends(example: Encoded, folder: Path) -> frozenset[int]:
    return frozenset({end.token for end in example.endings} | _configured_ends(folder))


def _configured_ends(folder: Path) -> set[int]:
    """The end tokens in generation_config.json or, without them, in config.json."""
    from finetune_data.models.base_models import CONFIG, read_json

    for name in ("generation_config.json", CONFIG):
        found = read_json(folder / name).get("eos_token_id")
        if isinstance(found, int):
            return {found}
        if isinstance(found, list):
            return {token for token in found if isinstance(token, int)}
    return set()
