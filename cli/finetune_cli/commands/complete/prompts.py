"""Encodes a prompt to exactly the tokens that precede a completion in the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    from finetune_cli.commands.complete.sources import Source
    from finetune_data.tokenize.tokenizer import Tokenizing

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


def of_text(tokenizer: Tokenizing, text: str, source: Source) -> Prompt:
    """Encode a text like the `prompt` of a training file."""
    from finetune_data.read.examples import COMPLETION, Row
    from finetune_data.read.findings import Finding

    [found] = tokenizer.encode([Row(1, text, PLACEHOLDER)])
    assert not isinstance(found, Finding)
    [example] = found
    start = example.roles.index(bytes([COMPLETION]))
    return Prompt([*example.tokens[:start]], _end_tokens(tokenizer, source))


def of_messages(
    tokenizer: Tokenizing, messages: Sequence[tuple[str, str]], source: Source
) -> Prompt:
    """Encode (role, text) messages with the chat template of the model, as a server does."""
    from finetune_data.read.examples import Conversation
    from finetune_data.read.findings import Finding

    written = [{"role": role, "content": text} for role, text in messages]
    prompt = tokenizer.prompt(Conversation(1, written))
    if isinstance(prompt, Finding):
        raise CommandError(prompt.message, "the chat template of the model rejects these messages")
    ends = _end_tokens(tokenizer, source)
    if source.is_of_earlier_version:
        answer = {"role": "assistant", "content": PLACEHOLDER}
        [answered] = tokenizer.encode([Conversation(1, [*written, answer])])
        if not isinstance(answered, Finding):
            ends |= {end.token for example in answered for end in example.endings}
    return Prompt(prompt, ends)


def _end_tokens(tokenizer: Tokenizing, source: Source) -> frozenset[int]:
    """Where a server stops: at the tokens of the configurations and of the tokenizer."""
    from finetune_data.tokenize.end_tokens import configured_ends

    found = source.end_tokens or configured_ends(source.folder)
    return frozenset([*found, tokenizer.eos])
