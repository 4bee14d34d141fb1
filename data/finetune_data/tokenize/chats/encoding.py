"""From the verified turns of a conversation to training examples.

Turns share an example as long as the tokens of each context begin with the tokens of the turns
before it. A template that writes earlier turns differently once more follows, or a token that
spans two turns, begins a new example: what the model sees in training is what a server sends it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from finetune_data.read.examples import COMPLETION, PROMPT, Conversation
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats.control_tokens import ControlToken
from finetune_data.tokenize.chats.layouts import Controls, Layout
from finetune_data.tokenize.chats.outlines import Outline, OutlinedChat, OutlinedTurns
from finetune_data.tokenize.chats.rendering import MARK
from finetune_data.tokenize.chats.turns import ChatTemplate, Turn
from finetune_data.tokenize.encoded import Encoded, TurnEnd
from finetune_data.tokenize.text_encoder import TextEncoder

_PROMPT, _COMPLETION = bytes([PROMPT]), bytes([COMPLETION])
_COMPARED, _COMPARED_LATER = 8, 2  # chats of the first and of other batches, encoded both ways
_NEIGHBORS = (("a b ", "c d\n"), ("a", "c"), ("a\n", "\nc"), ("a.", " c"))
_CACHED_CHARACTERS, _CACHED_HEADERS = 200, 1000


class ChatEncoder:
    """Encodes chats with the template and the tokenizer of a base model."""

    def __init__(
        self, template: ChatTemplate, encoder: TextEncoder, tokens: Sequence[ControlToken]
    ) -> None:
        self._template = template
        self._turns = OutlinedTurns(template)
        self._encoder = encoder
        written = [token for token in tokens if token.text in template.ends.written]
        separate = {token.text: token.id for token in written if self._is_separate(token)}
        self._controls = Controls(separate)
        self._layouts: dict[Outline, list[Layout] | None] = {}
        self._headers: dict[str, array[int]] = {}
        self._compared = _COMPARED

    def prompt(self, chat: Conversation) -> list[int] | Finding:
        """The tokens of the generation prompt for all messages."""
        text = self._template.prompt(chat)
        return text if isinstance(text, Finding) else self._whole(text)

    def encode(self, chats: Sequence[Conversation]) -> list[tuple[Encoded, ...] | Finding]:
        """The training examples of each chat, or why it has none."""
        found = [self._turns.find(chat) for chat in chats]
        examples = iter(self._examples([it for it in found if not isinstance(it, Finding)]))
        return [it if isinstance(it, Finding) else next(examples) for it in found]

    def _examples(self, chats: Sequence[OutlinedChat | list[Turn]]) -> list[tuple[Encoded, ...]]:
        count, self._compared = self._compared, _COMPARED_LATER
        exact = [self._one_by_one(_turns(chat)) for chat in chats[:count]]
        fast = self._at_once(chats)
        if fast[:count] != exact:  # no tokenizer is known for which this happens
            self._compared = _COMPARED
            return exact + [self._one_by_one(_turns(chat)) for chat in chats[count:]]
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

    def _at_once(self, chats: Sequence[OutlinedChat | list[Turn]]) -> list[tuple[Encoded, ...]]:
        """The same as `_one_by_one` for all chats together, without encoding a text twice."""
        drafts = [self._draft(chat) for chat in chats]
        written = [it for draft in drafts if draft is not None for it in draft]
        new = {header for it in written for header in it.headers} - self._headers.keys()
        ids = self._encoder.encode_batch([*(it.text for it in written), *new])
        arrays = [array("i", tokens) for tokens in ids[len(written) :]]
        known = self._headers | dict(zip(new, arrays, strict=True))
        self._remember(known)
        found = self._controls.find(ids[: len(written)])
        made = iter(
            [
                it.layout.example(tokens, places, [known[header] for header in it.headers])
                if controls == it.layout.controls
                else None
                for it, (tokens, controls, places) in zip(written, found, strict=True)
            ]
        )
        results: list[tuple[Encoded, ...]] = []
        for chat, draft in zip(chats, drafts, strict=True):
            examples = [next(made) for _ in draft or ()]
            complete = tuple([it for it in examples if it is not None])
            is_complete = examples and len(complete) == len(examples)
            results.append(complete if is_complete else self._one_by_one(_turns(chat)))
        return results

    def _remember(self, headers: dict[str, array[int]]) -> None:
        if len(self._headers) < _CACHED_HEADERS:
            short = (it for it in headers.items() if len(it[0]) <= _CACHED_CHARACTERS)
            self._headers = dict([*short][:_CACHED_HEADERS])

    def _draft(self, chat: OutlinedChat | list[Turn]) -> list[_Written] | None:
        """The texts to encode; None where the definition is followed word by word."""
        if isinstance(chat, OutlinedChat):
            texts: Sequence[str] = chat.texts
            if chat.outline not in self._layouts:
                self._layouts[chat.outline] = self._controls.layouts(chat.outline.turns)
            layouts = self._layouts[chat.outline]
        else:
            texts = ()
            layouts = self._controls.layouts(chat)
        if layouts is None:
            return None
        written = [_Written(it, it.text(texts), it.headers(texts)) for it in layouts]
        if any(MARK in it.text for it in written):  # control tokens in messages
            return None
        return written

    def _is_separate(self, control: ControlToken) -> bool:
        """Whether text before and after a token is encoded independently of it, whatever it is."""
        text = control.text
        if not self._template.quoting.replaces(text) or any(
            text.endswith(text[:length]) for length in range(1, len(text))
        ):
            return False  # the text of a message can have the token or begin it
        before = [one for one, _ in _NEIGHBORS]
        after = [f"{text}{other}" for _, other in _NEIGHBORS]
        whole = [f"{one}{other}{other}" for one, other in zip(before, after, strict=True)]
        found = self._encoder.encode([*before, *after, *whole])
        count = len(_NEIGHBORS)
        return all(
            joined == [*one, *other, *other]
            and [at for at in other if at == control.id] == other[:1]
            for one, other, joined in zip(
                found[:count], found[count : 2 * count], found[2 * count :], strict=True
            )
        )


class _Written(NamedTuple):
    """The text of an example, and those before its answers."""

    layout: Layout
    text: str
    headers: list[str]


def _turns(chat: OutlinedChat | list[Turn]) -> list[Turn]:
    return chat.turns if isinstance(chat, OutlinedChat) else chat


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
        return Encoded(array("i", self.tokens), bytes(self._roles), tuple(self._endings))
