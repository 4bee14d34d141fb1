"""A training example as spans of tokens with one role, and in plain language what ends answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from finetune_data.read.examples import COMPLETION
from finetune_data.tokenize.encoded import Encoded, How, TurnEnd

_RUN = re.compile(rb"(.)\1*", re.DOTALL)

_HOW: dict[How, str] = {
    "template": "written by the template",
    "following": "written by the template only before another message",
    "added": "added, because the template writes none",
}


class Span(NamedTuple):
    """The tokens from `start` to before `stop`, which all have one role."""

    role: int
    start: int
    stop: int


def find_spans(roles: bytes) -> Iterator[Span]:
    """The spans of an example, in order. roles: a byte for each token."""
    for run in _RUN.finditer(roles):
        yield Span(roles[run.start()], run.start(), run.end())


def find_ends(example: Encoded) -> dict[int, TurnEnd]:
    """The positions of the tokens that end answers."""
    last = [span.stop - 1 for span in find_spans(example.roles) if span.role == COMPLETION]
    if len(last) == len(example.endings):
        return dict(zip(last, example.endings, strict=True))
    found: dict[int, TurnEnd] = {}  # answers without a token between them share a span
    endings = iter(example.endings)
    end = next(endings, None)
    for at, (token, role) in enumerate(zip(example.tokens, example.roles, strict=True)):
        if end is not None and role == COMPLETION and token == end.token:
            found[at] = end
            end = next(endings, None)
    return found


def describe_how(how: How, *, is_chat: bool) -> str:
    """How the token that ends an answer gets into an example, to follow its text."""
    return _HOW[how] if is_chat else "added after each completion"


def describe_split(hows: Collection[How], template: str = "the chat template") -> str:
    """Why one conversation becomes several training examples. hows: of their ends."""
    if "added" in hows:
        return (
            f"{template} writes no token that ends a turn, and the added one is not in the prompts "
            "of later turns"
        )
    return f"{template} writes earlier turns differently once more messages follow"


def visible(text: str) -> str:
    """The text of a token on one line, for people: escaped, with marks for newlines and tabs."""
    if text.isprintable():
        return text
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character.isprintable():
        return character
    return {"\n": "↵", "\t": "→"}.get(character) or ascii(character)[1:-1]


def count_roles(roles: bytes) -> tuple[int, int]:
    """The numbers of tokens that are context and that are learned."""
    learned = roles.count(COMPLETION)
    return len(roles) - learned, learned


def summarize_ends(endings: Sequence[TurnEnd]) -> dict[TurnEnd, int]:
    """How often each token ends an answer, in order of first use."""
    return Counter(endings)
