"""Turns of plain conversations, rendered once for each sequence of roles.

The turns of a conversation of placeholders are found as for any other, and their outline is kept:
the texts of other conversations are put into its gaps. Where it is proved that the template writes
the same around all texts, that is enough. Otherwise the result is compared with a rendering of each
conversation. A text that can mean something to a template takes the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from finetune_data.read.examples import Conversation, is_learned
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats.proofs import ProvingRenderer
from finetune_data.tokenize.chats.rendering import Form
from finetune_data.tokenize.chats.turns import CLOSING, OPENED, ChatTemplate, Turn
from finetune_data.tokenize.chats.unknown_texts import GAP, PLACEHOLDER, Proof

_MEANINGFUL = ("</", "[/", "<think", "<reasoning", "[THINK", "\ue004")  # a block, or a placeholder
_INITIALS = tuple({mark[0] for mark in _MEANINGFUL})
_PLAIN, _WEIGHTED = ("role", "content"), ("role", "content", "weight")  # keys of a message
_KEPT = 1000  # outlines
_COMPARED = 4  # conversations that are rendered although the outline is proved

Fill = Callable[[Sequence[str]], str]
_Shape = tuple[tuple[str, ...], tuple[bool, ...]]  # roles, and what is learned if it is not usual


class Outline:
    """The turns of a conversation with gaps, and its text until the last answer.

    turns: with placeholders. until: the message after the last answer. proof: None if nothing is
    proved. is_rigid: whether the turns continue each other in the same way for all texts.
    """

    def __init__(self, turns: list[Turn], whole: str, until: int, proof: Proof | None) -> None:
        self.turns = turns
        self.until = until
        self.whole = fill(whole)
        self.is_rigid = _are_rigid(turns)
        self.compared = 0
        self._filled = [(fill(turn.context), fill(turn.learned), turn) for turn in turns]
        self._proof = proof
        self._absent = [
            part
            for part in (proof.absent if proof else ())
            if not any(mark in part for mark in _MEANINGFUL)  # no such text comes here
        ]

    def holds_for(self, texts: Sequence[str], joined: str) -> bool:
        """Whether the outline is proved for texts. joined: all of them, in any order."""
        proof = self._proof
        return (
            proof is not None
            and all(texts)
            and not (self._absent and any(part in joined for part in self._absent))
            and not (proof.others and not proof.others.isdisjoint(texts))
            and not (proof.dates and proof.dates != _dates_of_today(proof.dates))
        )

    def doubt(self) -> None:
        """Compare each conversation from now on."""
        self._proof = None

    def turns_with(self, texts: Sequence[str]) -> list[Turn]:
        """The turns of a conversation."""
        return [
            turn._replace(context=context(texts), learned=learned(texts))
            for context, learned, turn in self._filled
        ]


def _dates_of_today(forms: Iterable[str]) -> dict[str, str]:
    now = datetime.now()
    return {form: now.strftime(form) for form in forms}


class OutlinedChat(NamedTuple):
    """A conversation that is an outline and the texts in its gaps."""

    outline: Outline
    texts: list[str]

    @property
    def turns(self) -> list[Turn]:
        """Its turns."""
        return self.outline.turns_with(self.texts)


class OutlinedTurns:
    """The turns of conversations under one template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._outlines: dict[_Shape, Outline | None] = {}
        self._ends = template.ends.last_characters

    def find(self, chat: Conversation) -> OutlinedChat | list[Turn] | Finding:
        """The turns that the model learns, as `ChatTemplate.turns` finds them."""
        messages = chat.messages
        keys = set(map(tuple, messages))
        if chat.tools is None and keys <= {_PLAIN, _WEIGHTED}:
            texts: list[str] = [message["content"] for message in messages]
            joined = "\0".join(texts)
            if not _is_meaningful(joined) and [*map(str.strip, texts)] == texts:
                roles = tuple([message["role"] for message in messages])
                learned = tuple(map(is_learned, messages)) if _WEIGHTED in keys else ()
                found = self._outlined(chat, (roles, learned), texts, joined)
                if found is not None:
                    return found if found.outline.is_rigid else found.turns
        return self._template.turns(chat)

    def _outlined(
        self, chat: Conversation, shape: _Shape, texts: list[str], joined: str
    ) -> OutlinedChat | None:
        if shape not in self._outlines and len(self._outlines) < _KEPT:
            self._outlines[shape] = self._outline(chat)
        outline = self._outlines.get(shape)
        if outline is None:
            return None
        quoting = self._template.quoting
        if quoting.changes(joined):
            texts = quoting.quote(texts)
            joined = "\0".join(texts)
        made = OutlinedChat(outline, texts)
        # what ends a turn is searched from the end, where an answer can look like it
        if outline.holds_for(texts, joined) and self._ends.isdisjoint([it[-1] for it in texts]):
            if outline.compared >= _COMPARED:
                return made
            outline.compared += 1
            if made.turns == self._template.turns(chat):
                return made
            outline.doubt()  # no template is known for which this happens
        quoted = self._template.quoted(chat)
        rendered = self._template.render(quoted, outline.until)
        return made if outline.whole(texts) == rendered else None

    def _outline(self, chat: Conversation) -> Outline | None:
        """None if the template refuses or changes the placeholders."""
        messages = [
            {**message, "content": PLACEHOLDER.format(index)}
            for index, message in enumerate(chat.messages)
        ]
        gaps = chat._replace(messages=messages)
        template, renderer = self._template.proving()
        turns = template.turns(gaps)
        if isinstance(turns, Finding):
            return None
        until = 1 + max(i for i, it in enumerate(messages) if is_learned(it))
        whole = template.render(gaps, until)
        if whole is None or GAP.findall(whole) != [str(i) for i in range(until)]:
            return None
        return Outline(turns, whole, until, self._prove(gaps, turns, renderer))

    def _prove(
        self, gaps: Conversation, turns: Sequence[Turn], renderer: ProvingRenderer
    ) -> Proof | None:
        """What is proved about the renderings, if the turns follow from them for all texts.

        They do where a rendering begins with the prompt, and where only a block of reasoning
        differs. Elsewhere they are found by a search for texts.
        """
        proof = renderer.proof
        answers = [index for index, it in enumerate(gaps.messages) if is_learned(it)]
        for index, turn in zip(answers, turns, strict=True):
            whole = renderer.render(gaps, Form(), index + 1)
            opened = OPENED.search(turn.context)
            if opened is not None:
                proof.absent |= {opened[1], CLOSING[opened[1]]}
            elif not whole.startswith(turn.context):
                return None
        return proof if proof.doubt is None else None


def _are_rigid(turns: Sequence[Turn]) -> bool:
    """Whether turns continue each other, or not, for all texts."""
    return all(
        other.context.startswith(one.text) or _differ(one.text, other.context)
        for one, other in pairwise(turns)
    )


def _differ(one: str, other: str) -> bool:
    """Whether two texts that begin differently do so with all texts in their gaps."""
    pairs = enumerate(zip(one, other, strict=False))
    same = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
    rests = one[same:], other[same:]
    if not all(rests) or "\ue004" in one[one.rfind("\ue005", 0, same) + 1 : same]:
        return False
    if rests[1].startswith("\ue004"):
        rests = rests[1], rests[0]
    if not rests[0].startswith("\ue004"):
        return True  # both have a character of the template
    if rests[1].startswith("\ue004"):
        return False
    # a gap, against a text of the template: no text begins with a block, and what follows the gap
    # does not continue a shorter text to one
    behind = GAP.sub("", rests[0], count=1)[:1]
    return any(
        rests[1].startswith(mark) and behind not in {"", "\ue004", *mark[1:]}
        for mark in _MEANINGFUL
    )


def _is_meaningful(text: str) -> bool:
    """Whether a text can mean something to a template."""
    # a search for a character is faster than one for several texts
    for initial in _INITIALS:
        if initial in text:
            return any(mark in text for mark in _MEANINGFUL)
    return False


def fill(text: str) -> Fill:
    """A function that puts texts into the gaps of a rendered text."""
    parts = GAP.split(text)  # text, number, text, number, ..., text
    indexes = [int(number) for number in parts[1::2]]
    if not indexes:
        return lambda _: text

    def filled(texts: Sequence[str]) -> str:
        made = parts.copy()
        made[1::2] = [texts[index] for index in indexes]
        return "".join(made)

    return filled
