"""Generates one completion, token by token, with any model that returns logits."""

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
from finetune_cli.commands.complete.text import Decode, TextStream, final_length, find_stop


class Model(Protocol):
    """The interface of a causal language model."""

    def begin(self, tokens: Sequence[int]) -> Numbers:
        """Reset the model; returns the logits of the token after the prompt."""

    def follow(self, token: int) -> Numbers:
        """The logits of the token after this one."""


@dataclass(frozen=True)
class Request:
    """One prompt, and when its completion ends."""

    prompt: list[int]
    end_tokens: Collection[int]  # tokens that end a completion
    max_tokens: int
    stops: Sequence[str] = ()
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: int | None = None  # number of likeliest tokens to return at each position


@dataclass(frozen=True)
class SampledToken:
    """A token of the completion. logprob: its natural log probability under the model."""

    token: int
    logprob: float
    start: int  # of its text in the completion, in characters
    likeliest: dict[int, float]


@dataclass(frozen=True)
class Choice:
    """A completion. tokens: all sampled tokens, with the end token and those of a stop sequence."""

    text: str
    tokens: list[int]
    finish_reason: Literal["stop", "length"]
    sampled: list[SampledToken]  # the tokens whose text is in `text`

    @property
    def mean_logprob(self) -> float:
        return sum(it.logprob for it in self.sampled) / max(1, len(self.sampled))


def complete(
    model: Model,
    request: Request,
    decode: Decode,
    random: np.random.Generator,
    on_text: Callable[[str], None] = lambda text: None,
) -> Choice:
    """Generate a completion. on_text: receives each part of the text as soon as it is final."""
    stream = TextStream(decode, request.prompt)
    counts: Counter[int] = Counter()
    tokens: list[int] = []
    sampled: list[SampledToken] = []
    emitted = 0
    stop: int | None = None
    has_ended = False
    logits = model.begin(request.prompt)
    while True:
        token = next_token(logits, counts, request.sampling, random)
        tokens.append(token)
        if token in request.end_tokens:
            has_ended = True
            break
        counts[token] += 1
        sampled.append(_sampled(token, logits, len(stream.text), request.logprobs))
        stream.add(token)
        stop = find_stop(stream.text, request.stops)
        if stop is not None or len(tokens) >= request.max_tokens:
            break
        final = final_length(stream.text, request.stops)
        on_text(stream.text[emitted:final])
        emitted = max(emitted, final)
        logits = model.follow(token)
    if stop is None:
        stream.end()
        stop = find_stop(stream.text, request.stops)
    text = stream.text[:stop]
    on_text(text[emitted:])
    kept = [it for it in sampled if stop is None or it.start < stop]
    reason: Literal["stop", "length"] = "stop" if has_ended or stop is not None else "length"
    return Choice(text, tokens, reason, kept)


def _sampled(token: int, logits: Numbers, start: int, count: int | None) -> SampledToken:
    logs = log_probabilities(logits)
    tops = likeliest(logs, count or 0)
    return SampledToken(token, float(logs[token]), start, {top: float(logs[top]) for top in tops})
