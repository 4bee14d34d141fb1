"""What the model is given: exactly the tokens that stood before a completion in its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    from finetune_data.read.examples import Example
    from finetune_data.tokenize.tokenizer import ExampleTokenizer

ANSWER = "x"  # stands where the completion will


class Prompt(NamedTuple):
    """Tokens of the prompt, and those that end a completion of it."""

    tokens: list[int]
    ends: frozenset[int]


def with_separator(text: str, separator: str) -> str:
    """`text`, ended by the separator exactly once; blanks around a separator may be missing."""
    if text.endswith(separator):
        return text
    mark = separator.strip()
    trimmed = text.rstrip()
    if mark and trimmed.endswith(mark):
        text = trimmed.removesuffix(mark).rstrip()
    return text + separator


def of_text(tokenizer: ExampleTokenizer, text: str, folder: Path) -> Prompt:
    """A prompt as `prompt` of a training file."""
    from finetune_data.read.examples import Row

    return _cut(tokenizer, Row(1, text, ANSWER), folder)


def of_messages(
    tokenizer: ExampleTokenizer, messages: Sequence[tuple[str, str]], folder: Path
) -> Prompt:
    """A chat as the model's own template writes it; (role, text) of each message."""
    from finetune_data.read.examples import Conversation

    written = [{"role": role, "content": text} for role, text in messages]
    answered = [*written, {"role": "assistant", "content": ANSWER}]
    return _cut(tokenizer, Conversation(1, answered), folder)


def _cut(tokenizer: ExampleTokenizer, example: Example, folder: Path) -> Prompt:
    """Before the last learned run of tokens, whose last one ends it where it is no text."""
    from finetune_data.read.examples import COMPLETION
    from finetune_data.read.findings import Finding

    found = tokenizer.encode([example])[0]
    if isinstance(found, Finding):
        raise CommandError(found.message, "the model's chat template decides what it takes")
    learned = bytes([COMPLETION])
    end = found.roles.rindex(learned) + 1
    start = len(found.roles[:end].rstrip(learned))
    last = found.tokens[end - 1]
    own = {last} if not tokenizer.decode([last]) else set()
    return Prompt(found.tokens[:start], frozenset(own | _named_ends(folder)))


def _named_ends(folder: Path) -> set[int]:
    """What generation_config.json, else config.json, says of the model."""
    from finetune_data.models.base_models import CONFIG, read_json

    for name in ("generation_config.json", CONFIG):
        found = read_json(folder / name).get("eos_token_id")
        if isinstance(found, int):
            return {found}
        if isinstance(found, list):
            return {token for token in found if isinstance(token, int)}
    return set()
