"""Completions as programs get them: the old service's completion and chat completion objects."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

from finetune_api.wire import JsonObject
from finetune_cli.commands.complete.generation import Choice, Chosen

Names = Callable[[Sequence[int]], Sequence[str]]


def completion(model: str, choices: Sequence[Choice], names: Names | None) -> JsonObject:
    """`text_completion`. names: of tokens; None: no log-probabilities were asked for."""
    return _answer(
        "cmpl",
        "text_completion",
        model,
        [
            {
                "text": choice.text,
                "index": index,
                "logprobs": _logprobs(choice.chosen, names) if names else None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ],
    )


def chat_completion(model: str, choices: Sequence[Choice], names: Names | None) -> JsonObject:
    """`chat.completion`."""
    return _answer(
        "chatcmpl",
        "chat.completion",
        model,
        [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text},
                "logprobs": _chat_logprobs(choice.chosen, names) if names else None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ],
    )


def usage(prompt_tokens: int, sampled: Sequence[Choice]) -> dict[str, int]:
    """All that was sampled counts, also what --best-of dropped."""
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


def _logprobs(chosen: Sequence[Chosen], names: Names) -> JsonObject:
    """Four lists, an entry for each token; `text_offset` counts in the completion's text."""
    return {
        "tokens": [*names([it.token for it in chosen])],
        "token_logprobs": [it.logprob for it in chosen],
        "top_logprobs": [_tops(it, names) for it in chosen],
        "text_offset": [it.start for it in chosen],
    }


def _tops(chosen: Chosen, names: Names) -> dict[str, float]:
    """The likeliest, and the chosen one; of two tokens with one text the likelier."""
    found = {chosen.token: chosen.logprob, **chosen.likeliest}
    order = sorted(found, key=lambda token: found[token])
    named = dict(zip(names(order), (found[token] for token in order), strict=True))
    return dict(sorted(named.items(), key=lambda item: -item[1]))


def _chat_logprobs(chosen: Sequence[Chosen], names: Names) -> JsonObject:
    return {
        "content": [
            {
                **_token(it.token, it.logprob, names),
                "top_logprobs": [_token(top, logs, names) for top, logs in it.likeliest.items()],
            }
            for it in chosen
        ]
    }


def _token(token: int, logprob: float, names: Names) -> JsonObject:
    (name,) = names([token])
    return {"token": name, "logprob": logprob, "bytes": None}  # a name may be a part of a character
