"""From the verified turns of a conversation to training examples.

Turns share an example as long as the tokens of each context begin with the tokens of the turns
before it. A template that writes earlier turns differently once more follows, or a token that
spans two turns, begins a new example: what the model sees in training is what a server sends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from finetune_data.read.examples import COMPLETION, PROMPT, Conversation
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats.control_tokens import ControlToken
from finetune_data.tokenize.chats.outlines import OutlinedTurns
from finetune_data.tokenize.chats.rendering import MARK
from finetune_data.tokenize.chats.turns import ChatTemplate, Turn
from finetune_data.tokenize.encoded import Encoded, TurnEnd
from finetune_data.tokenize.text_encoder import TextEncoder

_PROMPT, _COMPLETION = bytes([PROMPT]), bytes([COMPLETION])
_COMPARED = 8  # chats of each batch that are encoded both ways
_CACHED_CHARACTERS, _CACHED_HEADERS = 200, 1000


class _Cuts(NamedTuple):
    """Texts that can be encoded on their own, because a control token begins all but the first.

    answers: for each turn, the index of the text with its beginning, and the length in characters
    of the part of that text which belongs to the context.
    """

    texts: list[str]
    answers: list[tuple[int, int]]


class ChatEncoder:
    """Encodes chats with the template and the tokenizer of a base model."""

    def __init__(
        self, template: ChatTemplate, encoder: TextEncoder, tokens: Sequence[ControlToken]
    ) -> None:
        self._template = template
        self._turns = OutlinedTurns(template)
        self._encoder = encoder
        known = {token.text: token.id for token in tokens}
        written = [text for text in template.ends.written if text in known]
        self._starts = [text for text in written if self._begins_a_text(text, known[text])]
        self._headers: dict[str, list[int]] = {}

    def prompt(self, chat: Conversation) -> list[int] | Finding:
        """The tokens of the generation prompt for all messages."""
        text = self._template.prompt(chat)
        return text if isinstance(text, Finding) else self._whole(text)

    def encode(self, chats: Sequence[Conversation]) -> list[tuple[Encoded, ...] | Finding]:
        """The training examples of each chat, or why it has none."""
        found = [self._turns.turns(chat) for chat in chats]
        turns = [it for it in found if not isinstance(it, Finding)]
        examples = iter(self._examples(turns))
        return [it if isinstance(it, Finding) else next(examples) for it in found]

    def _examples(self, chats: Sequence[list[Turn]]) -> list[tuple[Encoded, ...]]:
        exact = [self._one_by_one(turns) for turns in chats[:_COMPARED]]
        fast = self._in_cuts(chats)
        if fast[:_COMPARED] != exact:  # no tokenizer is known for which this happens
            return exact + [self._one_by_one(turns) for turns in chats[_COMPARED:]]
        return fast

    def _one_by_one(self, turns: Sequence[Turn]) -> tuple[Encoded, ...]:
        """Encode each context and each turn as a whole, as the definition says."""
        examples: list[_Example] = []
        for turn in turns:
            context, whole = self._whole(turn.context), self._whole(turn.text)
            if whole[: len(context)] == context:
                learned = whole[len(context) :]
            else:
                learned = self._after(turn.learned)
            if turn.how == "added":
                learned.append(turn.end.id)
            if not examples or not examples[-1].continues(context):
                examples.append(_Example())
            examples[-1].add(context[len(examples[-1].tokens) :], learned, turn)
        return tuple(example.encoded for example in examples)

    def _whole(self, text: str) -> list[int]:
        parts = self._template.quoting.split(text)
        ids = self._encoder.encode([next(parts)[0]])[0]
        for part, is_quoted in parts:
            if part:
                ids += self._encoder.encode_plain(part) if is_quoted else self._after(part)
        return ids

    def _after(self, text: str) -> list[int]:
        ids: list[int] = []
        for part, is_quoted in self._template.quoting.split(text):
            if part:
                encode = self._encoder.encode_plain if is_quoted else self._encoder.encode_after
                ids += encode(part)
        return ids

    def _in_cuts(self, chats: Sequence[list[Turn]]) -> list[tuple[Encoded, ...]]:
        """The same as `_one_by_one` for all chats together, without encoding a text twice."""
        grouped = [[*_joined(turns)] for turns in chats]
        cuts = [[self._cut(group) for group in groups] for groups in grouped]
        flat = [cut for groups in cuts for cut in groups if cut is not None]
        headers = {
            cut.texts[index][:length] for cut in flat for index, length in cut.answers
        } - self._headers.keys()
        texts = [text for cut in flat for text in cut.texts]
        ids = self._encoder.encode([*texts, *headers])
        known = self._headers | dict(zip(headers, ids[len(texts) :], strict=True))
        self._remember(known)
        pieces = iter(ids)
        results: list[tuple[Encoded, ...]] = []
        for turns, groups, chat_cuts in zip(chats, grouped, cuts, strict=True):
            made = [
                None
                if cut is None
                else _assemble(group, cut, [next(pieces) for _ in cut.texts], known)
                for group, cut in zip(groups, chat_cuts, strict=True)
            ]
            complete = tuple(it for it in made if it is not None)
            results.append(complete if len(complete) == len(made) else self._one_by_one(turns))
        return results

    def _remember(self, headers: dict[str, list[int]]) -> None:
        if len(self._headers) < _CACHED_HEADERS:
            short = (it for it in headers.items() if len(it[0]) <= _CACHED_CHARACTERS)
            self._headers = dict([*short][:_CACHED_HEADERS])

    def _cut(self, group: Sequence[Turn]) -> _Cuts | None:
        """Cut before control tokens; None where a whole text must be encoded."""
        text = group[-1].text
        if MARK in text:  # control tokens in messages
            return None
        texts, answers, at = [], [], 0
        for turn in group:
            begin, stop = len(turn.context), len(turn.text)
            start = max([at, *(text.rfind(it, at, begin) for it in self._starts)])
            if start > at:
                texts.append(text[at:start])
            if turn.how != "added":
                if turn.end.text not in self._starts:
                    return None
                stop -= len(turn.end.text)
            answers.append((len(texts), begin - start))
            texts.append(text[start:stop])
            at = stop
        return _Cuts(texts, answers)

    def _begins_a_text(self, text: str, token: int) -> bool:
        """Whether text before and after this token is encoded independently of it."""
        before, after = "a b ", f"{text}c d\n"
        whole, *parts = self._encoder.encode([before + after + after, before, after, after])
        return whole == [*chain(*parts)] and parts[1][:1] == [token]


class _Example:
    """A training example while turns are added to it."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._roles = bytearray()
        self._endings: list[TurnEnd] = []

    def continues(self, context: list[int]) -> bool:
        """Whether a turn with this context belongs to the example."""
        return context[: len(self.tokens)] == self.tokens

    def add(self, context: list[int], learned: list[int], turn: Turn) -> None:
        """Append one turn. context: the tokens that are new."""
        self.tokens += context + learned
        self._roles += _PROMPT * len(context) + _COMPLETION * len(learned)
        self._endings.append(TurnEnd(turn.end.id, turn.how))

    @property
    def encoded(self) -> Encoded:
        return Encoded(self.tokens, bytes(self._roles), tuple(self._endings))


def _joined(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Turns whose texts continue each other."""
    group: list[Turn] = []
    for turn in turns:
        if group and (group[-1].how == "added" or not turn.context.startswith(group[-1].text)):
            yield group
            group = []
        group.append(turn)
    yield group


def _assemble(
    group: Sequence[Turn], cut: _Cuts, pieces: Sequence[list[int]], headers: dict[str, list[int]]
) -> Encoded | None:
    """Join the tokens of the pieces; None if a token spans a context and its answer."""
    example = _Example()
    at = 0
    shared = 0  # tokens at the beginning of the next piece that end the turn before
    for turn, (index, length) in zip(group, cut.answers, strict=True):
        header = headers[cut.texts[index][:length]]
        if pieces[index][: len(header)] != header:
            return None
        context = [*chain(*pieces[at:index]), *header]
        learned = [*pieces[index][len(header) :], turn.end.id]
        example.add(context[shared:], learned, turn)
        at, shared = index + 1, 1
    return example.encoded
