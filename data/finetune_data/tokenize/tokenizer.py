"""From a prompt and its completion to tokens and their roles, as the model gets them.

Prompt and completion are encoded separately, because at inference only the prompt is encoded, so a
token that spans both never occurs there. The same applies to the pieces of a chat, which the
model's own template makes. An end-of-sequence token follows the completion and is learned, so that
the model learns to stop; in a chat it is the template's end-of-turn token. Special tokens in the
text of a prompt or a completion, such as `<|im_start|>`, become those tokens, because rows can hold
a chat format that was written by hand. In a chat only the template writes them: in the text of
messages they are plain text, so that no message can end a turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.read.examples import COMPLETION, NO_LOSS, PROMPT, Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chat_templates import ChatTemplate, Piece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NO_LOSS, _PROMPT, _COMPLETION = bytes([NO_LOSS]), bytes([PROMPT]), bytes([COMPLETION])
_SENTINEL = "\n"
_SPACE_MARK = "▁"


class Encoded(NamedTuple):
    """One example: `roles` has a byte for each token."""

    tokens: list[int]
    roles: bytes


class ExampleTokenizer:
    """Encodes examples with a base model's own tokenizer.

    start: the tokens that the tokenizer puts before every text, mostly none or one
    bos, eos: token ids; bos is None if the model has none
    vocabulary: the number of rows of the model's embedding; None if its config does not have it
    template: the chat template; None if the model has none
    name: the base model, for messages
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        start: Sequence[int],
        bos: int | None,
        eos: int,
        vocabulary: int | None = None,
        template: ChatTemplate | None = None,
        name: str = "",
    ) -> None:
        backend.no_truncation()  # tokenizer.json can have either setting from an earlier use
        backend.no_padding()
        self._backend = backend
        self._start = list(start)
        self._eos = eos
        self._empty_start = self._start or [eos if bos is None else bos]
        self.vocabulary = vocabulary
        self._template = template
        self._name = name
        self._sentinel = self._find_sentinel()

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the encoding of a text."""
        template = "".join(self._template.source) if self._template else ""
        settings = f"{self._start} {self._empty_start} {self._eos} {self._sentinel} {template}"
        return hashlib.sha256(f"{self._backend.to_str()}{settings}".encode()).hexdigest()

    def encode(self, examples: Sequence[Example]) -> list[Encoded | Finding]:
        """Tokens and roles of each example, computed in the threads of the tokenizers library.

        A Finding for a chat that the template refuses. Raises DataError for chats if the base model
        has no chat template.
        """
        if examples and isinstance(examples[0], Conversation):
            chats = [example for example in examples if isinstance(example, Conversation)]
            return self._encode_chats(chats)
        rows = [example for example in examples if isinstance(example, Row)]
        return [*self._encode_rows(rows)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special tokens."""
        text: str = self._backend.decode([int(token) for token in tokens])
        return text

    def lengths(self, examples: Sequence[Example]) -> list[int]:
        """Tokens of each example; 0 for a chat that the template refuses."""
        encoded = self.encode(examples)
        return [0 if isinstance(found, Finding) else len(found.tokens) for found in encoded]

    def texts(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token. A part of a character has its name in the vocabulary."""
        return [self._text(token) for token in tokens]

    def _text(self, token: int) -> str:
        name = self._backend.id_to_token(token) or ""
        if _SPACE_MARK in name:  # SentencePiece drops the space of a single token
            return name.replace(_SPACE_MARK, " ")
        text = self._backend.decode([token], skip_special_tokens=False)
        return name if not text or "\N{REPLACEMENT CHARACTER}" in text else text

    def _encode_rows(self, rows: Sequence[Row]) -> Iterator[Encoded]:
        texts: list[str] = []
        for row in rows:
            texts += (row.prompt, self._continued(row.completion) if row.prompt else row.completion)
        ids = self._ids(texts)
        for row, prompt, found in zip(rows, ids[::2], ids[1::2], strict=True):
            completion = self._without_sentinel(row.completion, found) if row.prompt else found
            start = self._start if prompt else self._empty_start  # normalization can empty it
            tokens = [*start, *prompt, *completion]
            if not completion or completion[-1] != self._eos:  # some files have it as text
                tokens.append(self._eos)
            context = len(start) + len(prompt)
            context_roles = _NO_LOSS * len(start) + _PROMPT * len(prompt)
            yield Encoded(tokens, context_roles + _COMPLETION * (len(tokens) - context))

    def _encode_chats(self, chats: Sequence[Conversation]) -> list[Encoded | Finding]:
        if self._template is None:
            raise DataError(failures.no_chat_template(self._name))
        cut = [self._template.pieces(chat) for chat in chats]
        texts: list[str] = []
        quoted: list[int] = []  # their indexes that are plain text
        for pieces in cut:
            if not isinstance(pieces, Finding):
                quoted += [len(texts) + i for i, piece in enumerate(pieces) if piece.is_quoted]
                texts += (
                    self._continued(piece.text) if index else piece.text
                    for index, piece in enumerate(pieces)
                )
        found = self._ids(texts)
        if quoted:
            plain = self._ids([texts[index] for index in quoted], is_quoted=True)
            for index, tokens in zip(quoted, plain, strict=True):
                found[index] = tokens
        ids = iter(found)
        return [
            pieces if isinstance(pieces, Finding) else self._join(pieces, ids) for pieces in cut
        ]

    def _join(self, pieces: Sequence[Piece], ids: Iterator[list[int]]) -> Encoded:
        """Join the pieces of a chat. The template writes the start and end tokens itself."""
        tokens: list[int] = []
        roles = bytearray()
        for index, piece in enumerate(pieces):
            found = next(ids)
            if index:
                found = self._without_sentinel(piece.text, found, is_quoted=piece.is_quoted)
            tokens += found
            mark = _COMPLETION if piece.is_learned else _PROMPT
            roles += mark * (len(tokens) - len(roles))
        return Encoded(tokens, bytes(roles))

    def _ids(self, texts: list[str], *, is_quoted: bool = False) -> list[list[int]]:
        backend = self._plain_text_backend if is_quoted else self._backend
        batch = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    @cached_property
    def _plain_text_backend(self) -> Tokenizer:
        """The same tokenizer, which encodes special tokens as plain text."""
        backend = type(self._backend).from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def _continued(self, text: str) -> str:
        """A text that follows another text, with the sentinel before it."""
        return _SENTINEL + text if self._sentinel else text

    def _without_sentinel(self, text: str, ids: list[int], *, is_quoted: bool = False) -> list[int]:
        if not self._sentinel:
            return ids
        if ids[: len(self._sentinel)] == self._sentinel:
            return ids[len(self._sentinel) :]
        # the first character of the text merged with the sentinel
        return self._ids([text], is_quoted=is_quoted)[0]

    def _find_sentinel(self) -> list[int]:
        """The sentinel's tokens if this tokenizer puts a space before every text, else [].

        SentencePiece models do: `yes` becomes ` yes`, and a model that learned this after a prompt
        would answer with a space that is not in the data. After a sentinel it stays `yes`.
        """
        alone, sentinel, behind = self._ids(["a", _SENTINEL, f"{_SENTINEL}a"])
        starts_alike = behind[: len(sentinel)] == sentinel
        return sentinel if starts_alike and behind[len(sentinel) :] != alone else []
