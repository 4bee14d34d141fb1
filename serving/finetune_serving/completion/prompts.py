"""Encodes a prompt to exactly the tokens that precede a completion in the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from finetune_data.read.examples import Message
    from finetune_data.tokenize.tokenizer import Tokenizing
    from finetune_serving.completion.local_model import LocalModel

PLACEHOLDER = "x"  # in place of the completion


class RefusedMessagesError(ValueError):
    """The chat template of the model rejects the messages."""


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


def of_text(tokenizer: Tokenizing, text: str, model: LocalModel) -> Prompt:
    """Encode a text like the `prompt` of a training file."""
    from finetune_data.read.examples import COMPLETION, Row
    from finetune_data.read.findings import Finding

    [found] = tokenizer.encode([Row(1, text, PLACEHOLDER)])
    assert not isinstance(found, Finding)
    [example] = found
    start = example.roles.index(bytes([COMPLETION]))
    return Prompt([*example.tokens[:start]], end_tokens(tokenizer, model))


def of_messages(
    tokenizer: Tokenizing,
    messages: Sequence[Message],
    model: LocalModel,
    tools: list[dict[str, Any]] | None = None,
) -> Prompt:
    """Encode messages, and the tools of a chat, with the model's template, as in the training.

    Raises RefusedMessagesError, and DataError for a model without a chat template.
    """
    from finetune_data.read.examples import Conversation
    from finetune_data.read.findings import Finding

    prompt = tokenizer.prompt(Conversation(1, [*messages], tools))
    if isinstance(prompt, Finding):
        raise RefusedMessagesError(prompt.message)
    ends = end_tokens(tokenizer, model)
    if model.is_of_earlier_version:
        answer = {"role": "assistant", "content": PLACEHOLDER}
        [answered] = tokenizer.encode([Conversation(1, [*messages, answer], tools)])
        if not isinstance(answered, Finding):
            ends |= {end.token for example in answered for end in example.endings}
    return Prompt(prompt, ends)


def end_tokens(tokenizer: Tokenizing, model: LocalModel) -> frozenset[int]:
    """Where a server stops: at the tokens of the configurations and of the tokenizer."""
    from finetune_data.tokenize.end_tokens import configured_ends

    found = model.end_tokens or configured_ends(model.folder)
    return frozenset([*found, tokenizer.eos])
