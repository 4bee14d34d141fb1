"""The nouns of this room: one example, and the batches that readers hand on.

Readers make them, checks look at them, fixes change them, the tokenizer encodes them. Text in an
example is valid Unicode without NUL and without lone surrogates; nothing was stripped or guessed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from finetune_data.read.findings import Finding

# Roles, one byte a token. An example's first token is never predicted, whatever its role.
NO_LOSS = 0  # the start token
PROMPT = 1
COMPLETION = 2  # the end-of-sequence token too

Message = dict[str, Any]  # role, content, tool_calls, weight, ...: as OpenAI's chat format has it


class Row(NamedTuple):
    """A prompt and its completion, and where they stand. The completion is not empty."""

    line: int  # in the file, from 1: a line of text, a row of a sheet or of Parquet
    prompt: str
    completion: str
    extra: tuple[str, ...] = ()  # columns that nobody reads


class Conversation(NamedTuple):
    """A chat, and where it stands: at least one message of the assistant has weight 1."""

    line: int
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    extra: tuple[str, ...] = ()


Example = Row | Conversation


class Batch(NamedTuple):
    """Some thousand lines of one file, in its order. All examples of a file have one shape."""

    examples: list[Example]
    findings: list[Finding]  # of the lines that are no example, and of the file
    position: int  # stored bytes read so far
    size: int  # stored bytes of the file; 0: unknown
