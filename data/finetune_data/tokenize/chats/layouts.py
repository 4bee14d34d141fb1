"""Where the answers are in the tokens of a conversation, which is encoded once as a whole.

The control tokens that the template writes are in its text and in its tokens, in the same order.
They are found again by their numbers, so that neither a text nor a part of it is encoded twice.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from finetune_data.read.examples import COMPLETION, PROMPT
from finetune_data.tokenize.chats.outlines import Fill, fill
from finetune_data.tokenize.chats.turns import Turn
from finetune_data.tokenize.encoded import Encoded, TurnEnd

_PROMPT, _COMPLETION = bytes([PROMPT]), bytes([COMPLETION])


class _Answer(NamedTuple):
    """An answer and its header: the text before it, from a control token on.

    begin: the index of this control token; None if the header is the whole text before it.
    end: the index of the control token that ends it; None if the token is added.
    """

    begin: int | None
    header: Fill
    end: int | None
    turn_end: TurnEnd


class Layout(NamedTuple):
    """One example: its text, the control tokens in it, as int32, and its answers."""

    text: Fill
    controls: bytes
    answers: list[_Answer]

    def headers(self, texts: Sequence[str]) -> list[str]:
        """The texts before the answers."""
        return [answer.header(texts) for answer in self.answers]

    def example(
        self, ids: array[int], places: Sequence[int], headers: Sequence[array[int]]
    ) -> Encoded | None:
        """The example with these tokens; None if a token spans a header and its answer.

        places: of the control tokens. headers: their tokens.
        """
        roles = b""
        endings = []
        for answer, header in zip(self.answers, headers, strict=True):
            begin = 0 if answer.begin is None else places[answer.begin]
            start = begin + len(header)
            if ids[begin:start] != header:
                return None
            if answer.end is None:
                ids.append(answer.turn_end.token)
                stop = len(ids)
            else:
                stop = places[answer.end] + 1
            roles += _PROMPT * (start - len(roles)) + _COMPLETION * (stop - start)
            endings.append(answer.turn_end)
        return Encoded(ids, roles, tuple(endings)) if len(roles) == len(ids) else None


class Controls:
    """The control tokens of a template that divide a text into parts with tokens of their own.

    known: their numbers, by their texts.
    """

    def __init__(self, known: Mapping[str, int]) -> None:
        self._known = dict(known)
        longest_first = sorted(known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._ids = np.array(sorted(set(known.values())), np.int32)

    def layouts(self, turns: Sequence[Turn]) -> list[Layout] | None:
        """The examples of turns with or without placeholders; None if they cannot be divided."""
        found = [self._layout(group) for group in _joined(turns)]
        made = [layout for layout in found if layout is not None]
        return made if len(made) == len(found) else None

    def find(self, encoded: Sequence[list[int]]) -> Iterator[tuple[array[int], bytes, list[int]]]:
        """The tokens of each text, its control tokens, as int32, and their places in it."""
        flat = array("i")
        for ids in encoded:
            flat.fromlist(ids)
        values = np.frombuffer(flat, np.int32) if flat else np.empty(0, np.int32)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        is_control = np.zeros(len(values), bool)
        for token in self._ids:
            is_control |= values == token
        at = np.flatnonzero(is_control)
        tokens = values[at].tobytes()
        ends = np.cumsum(lengths)
        stops = np.searchsorted(at, ends)
        places = (at - np.repeat(ends - lengths, np.diff(stops, prepend=0))).tolist()
        first = start = 0
        for stop, end in zip(stops.tolist(), ends.tolist(), strict=True):
            yield flat[start:end], tokens[4 * first : 4 * stop], places[first:stop]
            first, start = stop, end

    def _layout(self, group: Sequence[Turn]) -> Layout | None:
        text = group[-1].text
        found = [(it.start(), it.end(), self._known[it[0]]) for it in self._pattern.finditer(text)]
        answers, at = [], 0
        for turn in group:
            begin, stop = len(turn.context), len(turn.text)
            heads = [i for i, it in enumerate(found) if at <= it[0] and it[1] <= begin]
            end = None
            if turn.how != "added":
                last = stop - len(turn.end.text), stop, turn.end.id
                if last not in found:
                    return None
                end = found.index(last)
                at = last[0]
            start = found[heads[-1]][0] if heads else 0
            header = fill(turn.context[start:])
            turn_end = TurnEnd(turn.end.id, turn.how)
            answers.append(_Answer(heads[-1] if heads else None, header, end, turn_end))
        tokens = np.array([token for _, _, token in found], np.int32)
        return Layout(fill(text), tokens.tobytes(), answers)


def _joined(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Turns whose texts continue each other."""
    group: list[Turn] = []
    for turn in turns:
        if group and (group[-1].how == "added" or not turn.context.startswith(group[-1].text)):
            yield group
            group = []
        group.append(turn)
    yield group
