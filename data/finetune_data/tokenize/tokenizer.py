"""From a prompt and its completion to tokens and their roles, as the model will see them.

Prompt and completion are encoded apart: at inference the prompt alone is what is encoded, and a
token that spans both would never be seen there. The same holds for the pieces of a chat, which the
model's own template makes. An end-of-sequence token follows the completion and is learned, so that
the model knows when to stop; in a chat it is the template's end-of-turn token. Special tokens that
a prompt or a completion writes out, such as `<|im_start|>`, become those tokens: rows may hold a
chat format that was written by hand. In a chat the template alone writes them, and in the words of
messages they are plain text: nobody's words end a turn.

tokenizer.json is read by the `tokenizers` library alone (its import takes 0.2 s); only models
without that file need transformers, which needs no torch for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_api.names import Reason
from finetune_data.errors import BaseModelError, DataError
from finetune_data.models.base_models import CONFIG, read_json, text_settings
from finetune_data.read.examples import COMPLETION, NO_LOSS, PROMPT, Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chat_templates import ChatTemplate, Piece, TemplateSource, find_template

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

    start: tokens that the tokenizer puts before every text, mostly none or one
    bos, eos: ids; bos is None where the model has none
    vocabulary: rows of the model's embedding; None where its config does not say
    template: of chats; None where the model has none
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
        backend.no_truncation()  # tokenizer.json may hold either, from whatever it was used for
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
        """SHA-256 of all that decides how a text is encoded."""
        template = "".join(self._template.source) if self._template else ""
        settings = f"{self._start} {self._empty_start} {self._eos} {self._sentinel} {template}"
        return hashlib.sha256(f"{self._backend.to_str()}{settings}".encode()).hexdigest()

    def encode(self, examples: Sequence[Example]) -> list[Encoded | Finding]:
        """Tokens and roles of each example, over the tokenizers' own threads.

        A Finding for a chat that the template refuses. Raises DataError for chats where the base
        model has no chat template.
        """
        if examples and isinstance(examples[0], Conversation):
            chats = [example for example in examples if isinstance(example, Conversation)]
            return self._encode_chats(chats)
        rows = [example for example in examples if isinstance(example, Row)]
        return [*self._encode_rows(rows)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without the special ones."""
        text: str = self._backend.decode([int(token) for token in tokens])
        return text

    def lengths(self, examples: Sequence[Example]) -> list[int]:
        """Tokens of each example; 0 for a chat that the template refuses."""
        encoded = self.encode(examples)
        return [0 if isinstance(found, Finding) else len(found.tokens) for found in encoded]

    def texts(self, tokens: Sequence[int]) -> list[str]:
        """Each token's own text; of a part of a character its name in the vocabulary."""
        return [self._text(token) for token in tokens]

    def _text(self, token: int) -> str:
        name = self._backend.id_to_token(token) or ""
        if _SPACE_MARK in name:  # decoded alone, SentencePiece would drop the space
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
            start = self._start if prompt else self._empty_start  # some normalize it all away
            tokens = [*start, *prompt, *completion]
            if not completion or completion[-1] != self._eos:  # some files write it out
                tokens.append(self._eos)
            seen = len(start) + len(prompt)
            given = _NO_LOSS * len(start) + _PROMPT * len(prompt)
            yield Encoded(tokens, given + _COMPLETION * (len(tokens) - seen))

    def _encode_chats(self, chats: Sequence[Conversation]) -> list[Encoded | Finding]:
        if self._template is None:
            raise DataError.of(
                Reason.INVALID_DATA,
                f"the data are chats, and base model {self._name!r} has no chat template: give "
                "prompts and completions, or take a model that was made for chats",
                param="model",
            )
        cut = [self._template.pieces(chat) for chat in chats]
        texts: list[str] = []
        quoted: list[int] = []  # which of them
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
        """The template has written start and end tokens itself."""
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
        backend = self._quoting if is_quoted else self._backend
        batch = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    @cached_property
    def _quoting(self) -> Tokenizer:
        """The same tokenizer, to which the special tokens are words like any other."""
        backend = type(self._backend).from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def _continued(self, text: str) -> str:
        """A text that follows another gets the sentinel in front."""
        return _SENTINEL + text if self._sentinel else text

    def _without_sentinel(self, text: str, ids: list[int], *, is_quoted: bool = False) -> list[int]:
        if not self._sentinel:
            return ids
        if ids[: len(self._sentinel)] == self._sentinel:
            return ids[len(self._sentinel) :]
        # the text's first character merged with the sentinel
        return self._ids([text], is_quoted=is_quoted)[0]

    def _find_sentinel(self) -> list[int]:
        """The sentinel's tokens where this tokenizer puts a space before every text, else [].

        SentencePiece models do: `yes` alone becomes ` yes`, and a model that learned this after a
        prompt would answer with a space that nobody wrote. Behind a sentinel it stays `yes`.
        """
        alone, sentinel, behind = self._ids(["a", _SENTINEL, f"{_SENTINEL}a"])
        starts_alike = behind[: len(sentinel)] == sentinel
        return sentinel if starts_alike and behind[len(sentinel) :] != alone else []


def load_tokenizer(folder: Path, name: str) -> ExampleTokenizer:
    """The tokenizer of the base model in `folder`. Raises BaseModelError (BaseModelInvalid)."""
    try:
        config = read_json(folder / CONFIG)
        special = read_json(folder / "special_tokens_map.json")
        settings = {**special, **read_json(folder / "tokenizer_config.json")}
        generation = read_json(folder / "generation_config.json")
        path = folder / "tokenizer.json"
        backend = _read_backend(path) if path.is_file() else _convert_backend(folder)
        source = find_template(folder, settings)
    except ValueError as error:
        raise _invalid(name, str(error)) from error
    vocabulary = config.get("vocab_size") or text_settings(config).get("vocab_size")

    def token(kind: str) -> int | None:
        written = settings.get(f"{kind}_token")
        text = written.get("content") if isinstance(written, dict) else written
        by_text = backend.token_to_id(text) if isinstance(text, str) else None
        by_id = (_first(source.get(f"{kind}_token_id")) for source in (generation, config))
        return next((found for found in (by_text, *by_id) if found is not None), None)

    bos, eos = token("bos"), token("eos")
    if eos is None:
        raise _invalid(name, "its tokenizer has no end-of-sequence token")
    return ExampleTokenizer(
        backend,
        start=_start_tokens(backend, settings.get("add_bos_token"), bos),
        bos=bos,
        eos=eos,
        vocabulary=vocabulary if isinstance(vocabulary, int) else None,
        template=_chat_template(source, settings, backend) if source else None,
        name=name,
    )


def _chat_template(
    source: TemplateSource, settings: dict[str, Any], backend: Tokenizer
) -> ChatTemplate:
    tokens = {}
    for kind in ("bos", "eos", "unk", "pad"):
        written = settings.get(f"{kind}_token")
        text = written.get("content") if isinstance(written, dict) else written
        if isinstance(text, str):
            tokens[f"{kind}_token"] = text
    added = backend.get_added_tokens_decoder().values()
    return ChatTemplate(source, tokens, [token.content for token in added if token.special])


def model_positions(folder: Path) -> int | None:
    """The longest sequence, in tokens, that the model's config allows; None where it says none."""
    config = text_settings(read_json(folder / CONFIG))
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def _start_tokens(backend: Tokenizer, add_bos: object, bos: int | None) -> list[int]:
    if isinstance(add_bos, bool):  # transformers lets this setting win over tokenizer.json
        return [bos] if add_bos and bos is not None else []
    encoding = backend.encode("a", add_special_tokens=True)
    count = next((i for i, mark in enumerate(encoding.special_tokens_mask) if not mark), 0)
    return list(encoding.ids[:count])


def _read_backend(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"tokenizer.json can't be read: {error}") from error


def _convert_backend(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        backend: Tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        ).backend_tokenizer
        return backend
    except Exception as error:  # whatever a broken file makes it raise
        detail = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"it has no tokenizer.json and its tokenizer can't be converted "
            f"({type(error).__name__}: {detail})"
        ) from error


def _first(value: object) -> int | None:
    """An id, or the first of several."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) else None


def _invalid(name: str, what: str) -> BaseModelError:
    return BaseModelError.of(
        Reason.BASE_MODEL_INVALID, f"base model {name!r} can't be used: {what}", param="model"
    )
