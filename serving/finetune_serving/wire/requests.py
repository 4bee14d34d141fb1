"""The bodies of POST /v1/completions and /v1/chat/completions, checked.

Clients up to 0.28 send each unset field as `null`, which means the default. A field that the server
does not have is refused by name: a parameter that is ignored gives a result that looks right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import INT64, JsonObject
from finetune_data.read.chat_fields import ChatError
from finetune_data.read.examples import Message
from finetune_data.read.messages import MESSAGE_KEYS, read_message, read_role
from finetune_serving.completion.sampling import Sampling
from finetune_serving.problems import unknown_model, unsupported
from finetune_serving.wire.fields import Fields, reject
from finetune_web.problems import invalid

MODEL_CHARACTERS = 256  # of the id of a Model
MOST_CHOICES, MOST_SAMPLES = 16, 20
MOST_TOKENS = 2**31 - 1
MOST_MESSAGES = 10_000

# Fields of OpenAI's API with the values that change nothing. Any other value is refused.
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "parallel_tool_calls": (True, False),
}


class Endpoint(StrEnum):
    """The path below /v1."""

    COMPLETIONS = "completions"
    CHAT = "chat/completions"


@dataclass(frozen=True)
class CompletionRequest:
    """A checked request. It has prompts, or it is a chat and has messages."""

    endpoint: Endpoint
    model: str
    prompts: tuple[str | list[int], ...]
    messages: tuple[Message, ...]
    max_tokens: int | None  # None: the default, at most what the context has room for
    choices: int  # of each prompt
    samples: int  # of each prompt, of which the likeliest are the choices
    stops: tuple[str, ...]
    sampling: Sampling
    seed: int | None
    logprobs: int | None  # the number of likeliest tokens; None: no log probabilities
    echo: bool
    is_streamed: bool
    wants_usage: bool  # at the end of a stream

    @property
    def is_chat(self) -> bool:
        return self.endpoint is Endpoint.CHAT


def parse_request(body: JsonObject, endpoint: Endpoint) -> CompletionRequest:
    """Check a body. Raises Problem."""
    fields = Fields(body)
    is_chat = endpoint is Endpoint.CHAT
    model = _model(fields)
    messages = _messages(fields) if is_chat else ()
    prompts = () if is_chat else fields.prompts()
    is_streamed = fields.boolean("stream")
    choices = fields.integer("n", 1, MOST_CHOICES) or 1
    request = CompletionRequest(
        endpoint,
        model,
        prompts,
        messages,
        max_tokens=_max_tokens(fields, is_chat=is_chat),
        choices=choices,
        samples=choices if is_chat else _samples(fields, choices, is_streamed=is_streamed),
        stops=fields.stops(),
        sampling=Sampling(
            fields.number("temperature", 0, 2, 1),
            fields.number("top_p", 0, 1, 1),
            fields.number("presence_penalty", -2, 2, 0),
            fields.number("frequency_penalty", -2, 2, 0),
            fields.logit_bias(),
        ),
        seed=fields.integer("seed", INT64.start, INT64.stop - 1),
        logprobs=_chat_logprobs(fields) if is_chat else fields.integer("logprobs", 0, 5),
        echo=False if is_chat else fields.boolean("echo"),
        is_streamed=is_streamed,
        wants_usage=fields.stream_options(is_streamed=is_streamed),
    )
    fields.text("user")
    for name, value in fields.rest.items():
        if not any(type(value) is type(it) and value == it for it in WITHOUT_EFFECT.get(name, ())):
            raise unsupported(sanitize(name[:64]))
    return request


def _model(fields: Fields) -> str:
    model = fields.take("model")
    if model is None:
        raise invalid("The field 'model' is missing. Set it to the name of a model.", "model")
    if not isinstance(model, str) or not model:
        raise reject("model", model, "the name of a model")
    if len(model) > MODEL_CHARACTERS:
        raise unknown_model(f"{sanitize(model[:40])}...")
    return model


def _max_tokens(fields: Fields, *, is_chat: bool) -> int | None:
    found = fields.integer("max_tokens", 1 if is_chat else 0, MOST_TOKENS)
    if not is_chat:
        return found
    newer = fields.integer("max_completion_tokens", 1, MOST_TOKENS)
    if found is not None and newer is not None and found != newer:
        raise invalid(
            "The fields 'max_tokens' and 'max_completion_tokens' differ. Remove 'max_tokens'.",
            "max_tokens",
        )
    return found if newer is None else newer


def _samples(fields: Fields, choices: int, *, is_streamed: bool) -> int:
    best_of = fields.integer("best_of", 1, MOST_SAMPLES)
    if best_of is None:
        return choices
    if best_of < choices:
        raise invalid(
            f"The field 'best_of' is {best_of}, less than n, which is {choices}. Raise best_of.",
            "best_of",
        )
    if best_of > choices and is_streamed:
        raise invalid(
            "A stream cannot select the best of several completions. Remove 'best_of' or 'stream'.",
            "best_of",
        )
    return best_of


def _chat_logprobs(fields: Fields) -> int | None:
    wants, count = fields.boolean("logprobs"), fields.integer("top_logprobs", 0, 20)
    if count is not None and not wants:
        raise invalid("The field 'top_logprobs' needs 'logprobs': true.", "top_logprobs")
    return (count or 0) if wants else None


def _messages(fields: Fields) -> tuple[Message, ...]:
    """The messages as the readers of training files make them."""
    value = fields.take("messages")
    if value is None:
        raise invalid("The field 'messages' is missing. Set it to the chat so far.", "messages")
    if not isinstance(value, list) or not 0 < len(value) <= MOST_MESSAGES:
        raise reject("messages", value, f"a list of 1 to {MOST_MESSAGES:,} messages")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))


def _message(item: Any, place: str) -> Message:
    if not isinstance(item, dict):
        raise reject(place, item, "an object with role and content")
    found = {key: value for key, value in item.items() if value is not None}
    for key in found:
        if key not in MESSAGE_KEYS or key == "weight":
            raise unsupported(f"{place}.{sanitize(key[:64])}")
    unread: list[str] = []
    try:
        message = read_message(found, read_role(found.get("role"), f"{place}.role"), place, unread)
    except ChatError as error:
        raise invalid(f"{error.message}.", "messages") from error
    if unread:
        raise unsupported(sanitize(unread[0][:100]))
    return message
