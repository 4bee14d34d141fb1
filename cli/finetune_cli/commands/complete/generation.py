"""One completion, token by token, of anything that gives logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from finetune_cli.commands.complete.sampling import (
    Numbers,
    Sampling,
    likeliest,
    log_probabilities,
    next_token,
)
from finetune_cli.commands.complete.text import Decode, TextStream, certain, find_stop


class Model(Protocol):
    """What a causal model is to this room."""

    def begin(self, tokens: Sequence[int]) -> Numbers:
        """Logits of the token behind the prompt; forgets what was before."""

    def follow(self, token: int) -> Numbers:
        """Logits of the token behind this one."""


@dataclass(frozen=True)
class Request:
    """What is asked: one prompt, and how far to go."""

    prompt: list[int]
    ends: Collection[int]  # tokens that end a completion
    max_tokens: int
    stops: Sequence[str] = ()
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: int | None = None  # likeliest tokens to tell of at each place


@dataclass(frozen=True)
class Chosen:
    """A token of the completion: its natural log-probability, as the model has it."""

    token: int
    logprob: float
    start: int  # of its text in the completion's, in characters
    likeliest: dict[int, float]


@dataclass(frozen=True)
class Choice:
    """A completion. tokens: all that were sampled, also the end token and those of a stop."""

    text: str
    tokens: list[int]
    finish_reason: Literal["stop", "length"]
    chosen: list[Chosen]  # those whose text is told

    @property
    def mean_logprob(self) -> float:
        return sum(it.logprob for it in self.chosen) / max(1, len(self.chosen))


def complete(
    model: Model,
    request: Request,
    decode: Decode,
    random: np.random.Generator,
    tell: Callable[[str], None] = lambda text: None,
) -> Choice:
    """tell: gets each piece of the text as soon as no stop sequence can take it back."""
    stream = TextStream(decode, request.prompt)
    counts: Counter[int] = Counter()
    tokens: list[int] = []
    chosen: list[Chosen] = []
    told = 0
    stop: int | None = None
    has_ended = False
    logits = model.begin(request.prompt)
    while True:
        token = next_token(logits, counts, request.sampling, random)
        tokens.append(token)
        if token in request.ends:
            has_ended = True
            break
        counts[token] += 1
        chosen.append(_chosen(token, logits, len(stream.text), request.logprobs))
        stream.add(token)
        stop = find_stop(stream.text, request.stops)
        if stop is not None or len(tokens) >= request.max_tokens:
            break
        sure = certain(stream.text, request.stops)
        tell(stream.text[told:sure])
        told = max(told, sure)
        logits = model.follow(token)
    if stop is None:
        stream.end()
        stop = find_stop(stream.text, request.stops)
    text = stream.text[:stop]
    tell(text[told:])
    kept = [it for it in chosen if stop is None or it.start < stop]
    reason: Literal["stop", "length"] = "stop" if has_ended or stop is not None else "length"
    return Choice(text, tokens, reason, kept)


def _chosen(token: int, logits: Numbers, start: int, count: int | None) -> Chosen:
    logs = log_probabilities(logits)
    tops = likeliest(logs, count or 0)
    return Chosen(token, float(logs[token]), start, {top: float(logs[top]) for top in tops})
