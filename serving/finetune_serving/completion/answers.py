"""Completions as JSON: the completion and chat completion objects of OpenAI's API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from finetune_api.wire import JsonObject
from finetune_serving.completion.generation import Choice, SampledToken

Names = Callable[[Sequence[int]], Sequence[str]]


class EchoedPrompt(NamedTuple):
    """A prompt at the start of its completion.

    first: the first token, which has no log probability. scored: the others; `start` is relative to
    the prompt.
    """

    text: str
    first: int
    scored: Sequence[SampledToken]


def completion(model: str, choices: Sequence[Choice], names: Names | None) -> JsonObject:
    """A `text_completion`. names: the texts of tokens; None: omit log probabilities."""
    return _answer(
        "cmpl",
        "text_completion",
        model,
        [
            {
                "text": choice.text,
                "index": index,
                "logprobs": logprobs(choice.sampled, names) if names else None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ],
    )


def chat_completion(model: str, choices: Sequence[Choice], names: Names | None) -> JsonObject:
    """A `chat.completion`."""
    return _answer(
        "chatcmpl",
        "chat.completion",
        model,
        [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text},
                "logprobs": chat_logprobs(choice.sampled, names) if names else None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ],
    )


def usage(prompt_tokens: int, sampled: Sequence[Choice]) -> dict[str, int]:
    """The token counts; they include the completions that --best-of dropped."""
    completion_tokens = sum(len(choice.tokens) for choice in sampled)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _answer(prefix: str, kind: str, model: str, choices: list[JsonObject]) -> JsonObject:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
    }


def logprobs(
    sampled: Sequence[SampledToken],
    names: Names,
    echoed: EchoedPrompt | None = None,
    start: int = 0,
) -> JsonObject:
    """Four lists with an entry for each token; `text_offset` is relative to the text.

    start: of the completion in the text.
    """
    first = [] if echoed is None else [echoed.first]
    scored = () if echoed is None else echoed.scored
    tokens = [*scored, *sampled]
    nothing = [None] * len(first)
    return {
        "tokens": [*names([*first, *(it.token for it in tokens)])],
        "token_logprobs": [*nothing, *(it.logprob for it in tokens)],
        "top_logprobs": [*nothing, *(_tops(it, names) for it in tokens)],
        "text_offset": [
            *(0 for _ in first),
            *(it.start for it in scored),
            *(start + it.start for it in sampled),
        ],
    }


def _tops(sampled: SampledToken, names: Names) -> dict[str, float]:
    """The likeliest tokens and the sampled one; of tokens with equal text, the likelier."""
    found = {sampled.token: sampled.logprob, **sampled.likeliest}
    order = sorted(found, key=lambda token: found[token])
    named = dict(zip(names(order), (found[token] for token in order), strict=True))
    return dict(sorted(named.items(), key=lambda item: -item[1]))


def chat_logprobs(sampled: Sequence[SampledToken], names: Names) -> JsonObject:
    return {
        "content": [
            {
                **_token(it.token, it.logprob, names),
                "top_logprobs": [_token(top, logs, names) for top, logs in it.likeliest.items()],
            }
            for it in sampled
        ]
    }


def _token(token: int, logprob: float, names: Names) -> JsonObject:
    (name,) = names([token])
    return {
        "token": name,
        "logprob": logprob,
        "bytes": None,
    }  # a token may be a part of a character
