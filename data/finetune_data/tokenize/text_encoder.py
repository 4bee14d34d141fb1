"""Encodes texts that begin or continue an input, with and without control tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Semaphore
from typing import TYPE_CHECKING, Any

from finetune_api.names import Reason
from finetune_data import failures
from finetune_data.confined.sections import GIB, Section, Subject, current_place
from finetune_data.errors import BaseModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SENTINEL = "\n"
BATCHES = 2  # in the library at the same time
# of one batch of texts; usual tokenizers encode a million characters in a second
ENCODE_SECONDS, CHARACTERS_A_SECOND, ENCODE_BYTES = 10.0, 50_000, GIB


@contextmanager
def broken_tokenizer(model: str) -> Iterator[None]:
    """Raise BaseModelError for any error of the library, whose panics are no Exceptions.

    Its search of a regular expression panics, for example, after too many steps.
    """
    try:
        yield
    except (BaseModelError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        place = f" of {current_place()}" if current_place() else ""
        what = " ".join(str(error).split())[:200] or type(error).__name__
        problem = f"its tokenizer cannot read a text{place}: {what}"
        raise BaseModelError(failures.unusable_model(model, problem)) from error


class TextEncoder:
    """A tokenizer without its post-processor, which adds tokens around a whole text."""

    def __init__(self, backend: Tokenizer, model: str = "") -> None:
        """model: the name of the base model, for messages."""
        backend.no_truncation()  # tokenizer.json can have either setting from an earlier use
        backend.no_padding()
        self.backend = backend
        self._model = model
        self._batches = Semaphore(BATCHES)
        subject = Subject(
            f"the tokenizer of base model {model!r}",
            failures.REPAIR_MODEL,
            str(Reason.BASE_MODEL_INVALID),
            param="model",
        )
        self._section = Section(subject, ENCODE_SECONDS, ENCODE_BYTES)
        self.sentinel = self._find_sentinel()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts that begin an input. Computed in the threads of the library."""
        return [encoding.ids for encoding in self._encodings(texts)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for a batch of many texts. Further batches wait until one of BATCHES is done.

        The library divides its threads among all batches that it has, so that they end together.
        With all of them in the library, nothing would keep the cores busy while their tokens become
        Python objects.
        """
        with self._batches:
            found = self._encodings(texts)
        return [encoding.ids for encoding in found]

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        seconds = ENCODE_SECONDS + sum(map(len, texts)) / CHARACTERS_A_SECOND
        with self._section.at(seconds=seconds), broken_tokenizer(self._model):
            found: list[Any] = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return found

    def encode_after(self, text: str) -> list[int]:
        """The tokens of a text that continues an input."""
        [ids] = self.encode([self.continued(text)])
        return self.without_sentinel(text, ids)

    def encode_plain(self, text: str) -> list[int]:
        """The tokens of a text that continues an input; control tokens in it are plain text."""
        ids = self._without_added_tokens(self.continued(text))
        if ids[: len(self.sentinel)] == self.sentinel:
            return ids[len(self.sentinel) :]
        return self._without_added_tokens(text)

    def continued(self, text: str) -> str:
        """A text that continues an input, to be encoded and passed to `without_sentinel`."""
        return _SENTINEL + text if self.sentinel else text

    def without_sentinel(self, text: str, ids: list[int]) -> list[int]:
        """The tokens of a text, from the tokens of `continued(text)`."""
        if ids[: len(self.sentinel)] == self.sentinel:
            return ids[len(self.sentinel) :]
        return self.encode([text])[0]  # its first character merged with the sentinel

    def _without_added_tokens(self, text: str) -> list[int]:
        """The steps of the tokenizer without the first, which finds added tokens.

        The library's `encode_special_tokens` keeps those that are not special.
        """
        backend = self.backend
        with self._section.at(), broken_tokenizer(self._model):
            if backend.normalizer is not None:
                text = backend.normalizer.normalize_str(text)
            words = [text]
            if backend.pre_tokenizer is not None:
                words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
            return [token.id for word in words for token in backend.model.tokenize(word)]

    def _find_sentinel(self) -> list[int]:
        """The sentinel's tokens if this tokenizer puts a space before every text, else [].

        SentencePiece models do: `yes` becomes ` yes`, and a model that learned this after a prompt
        would answer with a space that is not in the data. After a sentinel it stays `yes`.
        """
        alone, sentinel, behind = self.encode(["a", _SENTINEL, f"{_SENTINEL}a"])
        starts_alike = behind[: len(sentinel)] == sentinel
        return sentinel if starts_alike and behind[len(sentinel) :] != alone else []
