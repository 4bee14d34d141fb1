"""From a prompt and its completion to tokens and their roles, as the model gets them.

Prompt and completion are encoded separately, because at inference only the prompt is encoded, so a
token that spans both never occurs there. An end-of-sequence token follows the completion and is
learned, so that the model learns to stop; in a chat it is the token that ends a turn (`chats`).
Special tokens in the text of a prompt or a completion, such as `<|im_start|>`, become those tokens,
because rows can hold a chat format that was written by hand. In a chat only the template writes
them: in the text of messages they are plain text, so that no message can end a turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.read.examples import COMPLETION, NO_LOSS, PROMPT, Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats.control_tokens import ControlToken
from finetune_data.tokenize.chats.encoding import ChatEncoder
from finetune_data.tokenize.chats.turns import ChatTemplate
from finetune_data.tokenize.encoded import Encoded, TurnEnd
from finetune_data.tokenize.text_encoder import TextEncoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NO_LOSS, _PROMPT, _COMPLETION = bytes([NO_LOSS]), bytes([PROMPT]), bytes([COMPLETION])
_SPACE_MARK = "▁"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # for bytes that are a part of a character
_LONGEST_CHARACTER = 8  # tokens
_SAME = "‥"  # the token belongs to the character before it


def control_tokens(backend: Tokenizer) -> list[ControlToken]:
    """All added tokens of a tokenizer, special and not."""
    added = backend.get_added_tokens_decoder().items()
    return [ControlToken(number, token.content, token.special) for number, token in added]


class Tokenizing(Protocol):
    """What checks and commands use of an ExampleTokenizer, here or in another process."""

    @property
    def eos(self) -> int: ...

    @property
    def vocabulary(self) -> int | None: ...

    def encode(self, examples: Sequence[Example]) -> list[tuple[Encoded, ...] | Finding]: ...

    def prompt(self, chat: Conversation) -> list[int] | Finding: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def texts(self, tokens: Sequence[int]) -> list[str]: ...

    def readable_texts(self, tokens: Sequence[int]) -> list[str]: ...


class ExampleTokenizer:
    """Encodes examples with a base model's own tokenizer.

    start, finish: the tokens that the tokenizer puts before and after every text
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
        finish: Sequence[int] = (),
        bos: int | None,
        eos: int,
        vocabulary: int | None = None,
        template: ChatTemplate | None = None,
        name: str = "",
    ) -> None:
        self._backend = backend
        self._encoder = TextEncoder(backend, name)
        self._start = list(start)
        self._finish = list(finish)
        self._eos = eos
        self._row_end = (TurnEnd(eos, "added"),)
        self._empty_start = self._start or [eos if bos is None else bos]
        self.vocabulary = vocabulary
        self._template = template
        self._chats = (
            ChatEncoder(template, self._encoder, control_tokens(backend)) if template else None
        )
        self._name = name

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the encoding of a text."""
        template = self._template.identity if self._template else ""
        start = f"{self._start} {self._empty_start} {self._eos} {self._encoder.sentinel}"
        start += f" {self._finish}" if self._finish else ""
        return hashlib.sha256(f"{self._backend.to_str()}{start} {template}".encode()).hexdigest()

    @property
    def eos(self) -> int:
        """The end-of-sequence token."""
        return self._eos

    @property
    def added_tokens(self) -> frozenset[int]:
        """The tokens that the tokenizer finds as text before everything else."""
        return frozenset(self._backend.get_added_tokens_decoder())

    def encode(self, examples: Sequence[Example]) -> list[tuple[Encoded, ...] | Finding]:
        """The training examples of each example, in the threads of the tokenizers library.

        A row is one. A chat is several if its template writes a turn differently once more messages
        follow. A Finding for a chat that the template refuses or of which it loses a part. Raises
        DataError for chats if the base model has no chat template.
        """
        if examples and isinstance(examples[0], Conversation):
            chats = [example for example in examples if isinstance(example, Conversation)]
            return self._chat_encoder.encode(chats)
        rows = [example for example in examples if isinstance(example, Row)]
        return [(encoded,) for encoded in self._encode_rows(rows)]

    def prompt(self, chat: Conversation) -> list[int] | Finding:
        """The tokens of the generation prompt for messages, as a server makes them.

        A Finding if the template refuses them. Raises DataError without a chat template.
        """
        return self._chat_encoder.prompt(chat)

    @property
    def _chat_encoder(self) -> ChatEncoder:
        if self._chats is None:
            raise DataError(failures.no_chat_template(self._name))
        return self._chats

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special tokens."""
        text: str = self._backend.decode([int(token) for token in tokens])
        return text

    def texts(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token. A part of a character has its name in the vocabulary."""
        return [self._text(token) for token in tokens]

    def readable_texts(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token, for people: tokens that make up a character have it together.

        The first of them has the character, and the others have a mark.
        """
        texts = self.texts(tokens)
        start = 0  # of the tokens that are parts of a character, up to `index`
        for index, token in enumerate(tokens):
            if not self._is_part(token, texts[index]):
                start = index + 1
                continue
            together = self._backend.decode(tokens[start : index + 1], skip_special_tokens=False)
            if together and _UNKNOWN not in together:
                texts[start : index + 1] = [together] + [_SAME] * (index - start)
                start = index + 1
            elif index - start == _LONGEST_CHARACTER:  # bytes that are no text
                start = index + 1
        return texts

    def _is_part(self, token: int, text: str) -> bool:
        """Whether a token is a part of a character, which has a name instead of a text."""
        if text.isascii() and not text.startswith("<0x"):
            return False
        return _UNKNOWN in self._backend.decode([token], skip_special_tokens=False)

    def _text(self, token: int) -> str:
        name = self._backend.id_to_token(token) or ""
        if _SPACE_MARK in name:  # SentencePiece drops the space of a single token
            return name.replace(_SPACE_MARK, " ")
        text = self._backend.decode([token], skip_special_tokens=False)
        return name if not text or _UNKNOWN in text else text

    def _encode_rows(self, rows: Sequence[Row]) -> Iterator[Encoded]:
        encoder = self._encoder
        texts: list[str] = []
        for row in rows:
            texts += (
                row.prompt,
                encoder.continued(row.completion) if row.prompt else row.completion,
            )
        ids = encoder.encode_batch(texts)
        for row, prompt, found in zip(rows, ids[::2], ids[1::2], strict=True):
            completion = encoder.without_sentinel(row.completion, found) if row.prompt else found
            start = self._start if prompt else self._empty_start  # normalization can empty it
            before, asked = len(start), len(prompt)
            # The encoder made the list of the prompt for this row, so that it may grow.
            tokens = [*start, *prompt] if start else prompt
            tokens += self._finish
            tokens += completion
            if not completion or completion[-1] != self._eos:  # some files have it as text
                tokens.append(self._eos)
            roles = _NO_LOSS * before + _PROMPT * asked + _NO_LOSS * len(self._finish)
            roles += _COMPLETION * (len(tokens) - len(roles))
            yield Encoded(tokens, roles, self._row_end)
