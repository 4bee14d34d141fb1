"""Encodes a prompt to exactly the tokens that precede a completion in the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    from finetune_data.read.examples import Example
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
    from finetune_data.read.examples import Row

    return _cut(tokenizer, Row(1, text, PLACEHOLDER), folder)


def of_messages(
    tokenizer: ExampleTokenizer, messages: Sequence[tuple[str, str]], folder: Path
) -> Prompt:
    """Encode (role, text) messages with the chat template of the model."""
    from finetune_data.read.examples import Conversation

    written = [{"role": role, "content": text} for role, text in messages]
    answered = [*written, {"role": "assistant", "content": PLACEHOLDER}]
    return _cut(tokenizer, Conversation(1, answered), folder)


def _cut(tokenizer: ExampleTokenizer, example: Example, folder: Path) -> Prompt:
    """Cut before the completion; its last token is an end token if it has no text."""
    from finetune_data.read.examples import COMPLETION
    from finetune_data.read.findings import Finding

    found = tokenizer.encode([example])[0]
    if isinstance(found, Finding):
        raise CommandError(found.message, "the chat template of the model rejects these messages")
    learned = bytes([COMPLETION])
    end = found.roles.rindex(learned) + 1
    start = len(found.roles[:end].rstrip(learned))
    last = found.tokens[end - 1]
    own_end = {last} if not tokenizer.decode([last]) else set()
    return Prompt(found.tokens[:start], frozenset(own_end | _configured_ends(folder)))


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
