"""A training example as tokens, and what ends the answers in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

# How the end of an answer gets into an example: the template writes it after the answer; it writes
# it only once another message follows; or it writes none, so the end-of-sequence token is added.
How = Literal["template", "following", "added"]


class TurnEnd(NamedTuple):
    """The token that ends an answer, which the model learns to write."""

    token: int
    how: How


class Encoded(NamedTuple):
    """One training example: `roles` has a byte for each token, `endings` an entry per answer.

    tokens: a list, or for a chat an array of C integers, which is written as it is.
    """

    tokens: Sequence[int]
    roles: bytes
    endings: tuple[TurnEnd, ...] = ()
