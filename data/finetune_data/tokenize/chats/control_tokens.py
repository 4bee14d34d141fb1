"""The control tokens of a tokenizer, and the one that ends an answer in a template.

What ends an answer is observed: a question and an answer are rendered, and the tokens behind the
answer are the template's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from finetune_data.read.examples import Conversation
from finetune_data.tokenize.chats.rendering import Form, Renderer, RenderError

QUESTION, ANSWER, NEXT = "Question", "Answer", "Next"
_TALK = (("user", QUESTION), ("assistant", ANSWER), ("user", NEXT))


class ControlToken(NamedTuple):
    """A token that the tokenizer finds as text before everything else."""

    id: int
    text: str
    is_special: bool


@dataclass(frozen=True)
class TurnEnds:
    """The tokens that can end a turn.

    plain: the one that the template writes after an answer without tool calls; None if it writes
    none. is_late: whether it writes `plain` only once another message follows. stops: those that
    end generation according to the base model, with `plain`. ends: all that can end a turn, among
    them the ones of tool calls. written: the texts of the control tokens that the template writes
    in a plain conversation.
    """

    plain: ControlToken | None
    is_late: bool
    stops: dict[str, ControlToken]
    ends: dict[str, ControlToken]
    written: tuple[str, ...]

    @classmethod
    def observe(
        cls, renderer: Renderer, tokens: Sequence[ControlToken], stop_ids: Collection[int]
    ) -> TurnEnds:
        """Render a short conversation, and find the tokens in it."""
        known = {token.text: token for token in tokens if token.text}
        pattern = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))))
        stops = {text: token for text, token in known.items() if token.id in stop_ids}
        special = {text: token for text, token in known.items() if token.is_special}
        before, after, following = _observed(renderer)
        headers = frozenset(pattern.findall(before)) - stops.keys() if known else frozenset()
        found = [known[text] for text in pattern.findall(after)] if known else []
        later = [known[text] for text in pattern.findall(following)] if known else []
        closing = [*found, *(token for token in later if token.text not in headers)]
        plain = closing[0] if closing else None
        written = dict.fromkeys(pattern.findall(before + after + following)) if known else {}
        if plain is not None:
            stops = {**stops, plain.text: plain}
        ends = {**special, **stops, **{token.text: token for token in closing}}
        # a system message before the question can end with the same token as an answer
        ends = {text: it for text, it in ends.items() if text in stops or text not in headers}
        return cls(plain, not found, stops, ends, tuple(written))

    def trailing(self, text: str) -> list[tuple[int, ControlToken]]:
        """The end tokens at the end of a text, from left to right, with their positions.

        There can be space between and behind them.
        """
        found: list[tuple[int, ControlToken]] = []
        end = len(text.rstrip())
        while text.endswith(self._texts, 0, end):
            longest = max((it for it in self._texts if text.endswith(it, 0, end)), key=len)
            end -= len(longest)
            found.append((end, self.ends[longest]))
            end = len(text[:end].rstrip())
        return found[::-1]

    @cached_property
    def last_characters(self) -> frozenset[str]:
        """The last characters of the texts of all end tokens."""
        return frozenset(text[-1] for text in self.ends)

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(self.ends)

    def first_stop(self, text: str, start: int) -> tuple[int, ControlToken] | None:
        """The first token from `start` on that ends generation, and its position."""
        places = ((text.find(it, start), token) for it, token in self.stops.items())
        return min((place for place in places if place[0] >= 0), default=None)


def _observed(renderer: Renderer) -> tuple[str, str, str]:
    """The text before the question, after the last answer, and between an answer and a question.

    Empty texts for a template that refuses a plain conversation.
    """
    chat = Conversation(0, [{"role": role, "content": text} for role, text in _TALK])
    try:
        asked = renderer.render(chat, Form(), 1, is_prompt=True)
        answered = renderer.render(chat, Form(), 2)
    except RenderError:
        return "", "", ""
    before = asked.partition(QUESTION)[0]
    after = answered.rpartition(ANSWER)[2] if ANSWER in answered else ""
    followed = renderer.try_render(chat, Form()) or ""
    following = followed.rpartition(ANSWER)[2].partition(NEXT)[0] if ANSWER in followed else ""
    return before, after, following
