"""One example, and the batches of examples that readers return.

Readers make examples, checks inspect them, fixes change them, and the tokenizer encodes them. Text
in an example is valid Unicode without NUL and lone surrogates; nothing was stripped or guessed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from finetune_data.read.findings import Finding

# Roles, one byte per token. The first token of an example is never predicted, whatever its role.
NO_LOSS = 0  # the start token
PROMPT = 1
COMPLETION = 2  # the end-of-sequence token too

REASONING = "reasoning_content"  # the key of a message that holds its reasoning
Message = dict[str, Any]  # role, content, tool_calls, weight, ...: as in OpenAI's chat format


def is_learned(message: Message) -> bool:
    """Whether the model learns this message: an assistant message without weight 0."""
    return bool(message["role"] == "assistant" and message.get("weight", 1))


class Row(NamedTuple):
    """A prompt and its completion, and their line. The completion is not empty."""

    line: int  # in the file, from 1: a line of text, a row of a sheet or of Parquet
    prompt: str
    completion: str
    extra: tuple[str, ...] = ()  # columns that are not read


class Conversation(NamedTuple):
    """A chat, and its line. At least one assistant message has weight 1."""

    line: int
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    extra: tuple[str, ...] = ()


Example = Row | Conversation


class Batch(NamedTuple):
    """About a thousand lines of one file, in order. All examples of a file have one shape."""

    examples: list[Example]
    findings: list[Finding]  # about lines that are no example, and about the file
    position: int  # stored bytes read so far
    size: int  # stored bytes of the file; 0: unknown
