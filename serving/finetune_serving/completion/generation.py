"""Generates one completion, token by token, with any model that returns logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np

from finetune_serving.completion.sampling import (
    Numbers,
    Sampling,
    likeliest,
    log_probabilities,
    next_token,
)
from finetune_serving.completion.text import Decode, TextStream, final_length, find_stop


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
    end_logprob: float | None = None  # of the end token

    @property
    def mean_logprob(self) -> float:
        """The mean for each token, with the end token: an empty completion is not always best."""
        found = [it.logprob for it in self.sampled]
        if self.end_logprob is not None:
            found.append(self.end_logprob)
        return sum(found) / max(1, len(found))


class Part(NamedTuple):
    """A part of a completion that is final: no stop sequence can remove it any more."""

    text: str
    sampled: Sequence[SampledToken]  # the tokens that begin in this part


def complete(
    model: Model,
    request: Request,
    decode: Decode,
    random: np.random.Generator,
    on_part: Callable[[Part], None] = lambda part: None,
) -> Choice:
    """Generate a completion.

    on_part: called after each token with what has become final, which can be nothing. An exception
    that it raises ends the completion.
    """
    stream = TextStream(decode, request.prompt)
    counts: Counter[int] = Counter()
    tokens: list[int] = []
    sampled: list[SampledToken] = []
    emitted, reported = 0, 0  # characters and tokens
    stop: int | None = None
    end_logprob: float | None = None
    logits = model.begin(request.prompt)
    while True:
        token = next_token(logits, counts, request.sampling, random)
        tokens.append(token)
        if token in request.end_tokens:
            end_logprob = float(log_probabilities(logits)[token])
            break
        counts[token] += 1
        sampled.append(_sampled(token, logits, len(stream.text), request.logprobs))
        stream.add(token)
        stop = find_stop(stream.text, request.stops)
        if stop is not None or len(tokens) >= request.max_tokens:
            break
        final = final_length(stream.text, request.stops)
        begun = sum(it.start < final for it in sampled[reported:])
        on_part(Part(stream.text[emitted:final], sampled[reported : reported + begun]))
        emitted, reported = max(emitted, final), reported + begun
        logits = model.follow(token)
    if stop is None:
        stream.end()
        stop = find_stop(stream.text, request.stops)
    text = stream.text[:stop]
    kept = [it for it in sampled if stop is None or it.start < stop]
    on_part(Part(text[emitted:], kept[reported:]))
    reason: Literal["stop", "length"] = (
        "stop" if end_logprob is not None or stop is not None else "length"
    )
    return Choice(text, tokens, reason, kept, end_logprob)


def _sampled(token: int, logits: Numbers, start: int, count: int | None) -> SampledToken:
    logs = log_probabilities(logits)
    tops = likeliest(logs, count or 0)
    return SampledToken(token, float(logs[token]), start, {top: float(logs[top]) for top in tops})
