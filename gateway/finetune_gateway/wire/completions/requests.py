"""The bodies of POST /v1/completions and /v1/chat/completions: checked, and prepared for a server.

Clients up to 0.28 send each unset field as `null`, which vLLM refuses, so nulls are dropped. What a
server may ignore in silence is refused with the name of the field. Prompts and messages are never
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject
from finetune_gateway.wire.completions.json_fields import (
    Check,
    any_object,
    boolean,
    integer,
    is_integer,
    number,
    object_of,
    objects,
    reject,
    text,
)
from finetune_web.problems import Problem, invalid, missing

MODEL_CHARACTERS = 256  # of the id of a Model
MOST_CHOICES = 16  # n
MOST_STOPS = 4
MOST_PROMPTS = 2048
UNSUPPORTED = "unsupported_parameter"


class Endpoint(StrEnum):
    """The path below /v1, here and on the server."""

    COMPLETIONS = "completions"
    CHAT = "chat/completions"


def _check_stop(value: Any, param: str) -> None:
    stops = value if isinstance(value, list) else [value]
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise reject(param, value, "a text, or a list of texts, none of which is empty")
    if len(stops) > MOST_STOPS:
        raise invalid(
            f"The field '{param}' has {len(stops)} texts. Use at most {MOST_STOPS}.", param
        )


def _check_prompt(value: Any, param: str) -> None:
    if isinstance(value, str) or _is_tokens(value):
        return
    if not isinstance(value, list) or not (
        all(isinstance(prompt, str) for prompt in value) or all(map(_is_tokens, value))
    ):
        raise reject(param, value, "a text, a list of tokens, or a list of several of one kind")
    if not 0 < len(value) <= MOST_PROMPTS:
        raise invalid(
            f"The field '{param}' has {len(value):,} prompts. Use 1 to {MOST_PROMPTS:,}.", param
        )


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_integer(it, 0) for it in value)


def _check_messages(value: Any, param: str) -> None:
    if not isinstance(value, list) or not value:
        raise reject(param, value, "a list of messages with at least one message")
    for number_, message in enumerate(value):
        where = f"{param}[{number_}]"
        if not isinstance(message, dict):
            raise reject(where, message, "an object with role and content")
        if not isinstance(message.get("role"), str):
            raise reject(f"{where}.role", message.get("role"), "a text, such as user")


def _check_stream_options(value: Any, param: str) -> None:
    any_object(value, param)
    if value.get("include_usage") is not None:
        boolean(value["include_usage"], f"{param}.include_usage")


def _check_tool_choice(value: Any, param: str) -> None:
    if not isinstance(value, str | dict):
        raise reject(param, value, "a text or an object")


_SAMPLING: Mapping[str, Check] = {
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "n": integer(1, MOST_CHOICES),
    "stop": _check_stop,
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "logit_bias": object_of(number(-100, 100)),
    "seed": integer(),
    "stream": boolean,
    "stream_options": _check_stream_options,
    "user": text,
}
FIELDS: Mapping[Endpoint, Mapping[str, Check]] = {
    Endpoint.COMPLETIONS: {
        **_SAMPLING,
        "prompt": _check_prompt,
        "max_tokens": integer(0),
        "echo": boolean,
        "logprobs": integer(0, 5),
        "best_of": integer(1, 20),
        "suffix": text,
    },
    Endpoint.CHAT: {
        **_SAMPLING,
        "messages": _check_messages,
        "max_tokens": integer(1),
        "max_completion_tokens": integer(1),
        "logprobs": boolean,
        "top_logprobs": integer(0, 20),
        "tools": objects,
        "tool_choice": _check_tool_choice,
        "parallel_tool_calls": boolean,
        "functions": objects,
        "function_call": _check_tool_choice,
        "response_format": any_object,
        "reasoning_effort": text,
    },
}  # fmt: skip
# Fields of vLLM, which checks them itself; a server without them refuses or ignores them.
EXTENSIONS = frozenset(
    {
        "add_generation_prompt",
        "add_special_tokens",
        "allowed_token_ids",
        "bad_words",
        "chat_template_kwargs",
        "continue_final_message",
        "ignore_eos",
        "include_reasoning",
        "include_stop_str_in_output",
        "length_penalty",
        "min_p",
        "min_tokens",
        "prompt_logprobs",
        "repetition_penalty",
        "return_token_ids",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop_token_ids",
        "structured_outputs",
        "top_k",
        "truncate_prompt_tokens",
    }
)
# Fields of OpenAI's API that most servers lack: forwarded only to one whose settings list them.
OPTIONAL = frozenset({"best_of", "suffix"})


@dataclass(frozen=True)
class CompletionRequest:
    """A checked request."""

    endpoint: Endpoint
    model: str  # as the client calls it
    body: JsonObject  # without nulls and without the model

    @property
    def is_streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Whether the client wants the chunk with the number of tokens at the end of a stream."""
        return bool(self.body.get("stream_options", {}).get("include_usage"))

    def forwarded(self, name: str, supports: frozenset[str]) -> JsonObject:
        """The body for a server with the optional fields `supports`. name: of the model there.

        Raises Problem for a field that the server may ignore. A stream always ends with the number
        of tokens, for the metrics.
        """
        body = dict(self.body)
        for field in body:
            self._check_support(field, supports)
        for field in OPTIONAL - supports:  # what remains has no effect
            body.pop(field, None)
        if self.is_streamed:
            body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
        return {"model": name, **body}

    def _check_support(self, field: str, supports: frozenset[str]) -> None:
        if field in supports:
            return
        if field == "best_of" and self.body["best_of"] > self.body.get("n", 1):
            raise self._unsupported(field, "Request more choices with n, and select one of them.")
        if field == "suffix" and self.body["suffix"]:
            raise self._unsupported(field, "Remove the field.")
        if field not in FIELDS[self.endpoint] and field not in EXTENSIONS:
            raise self._unsupported(sanitize(field[:64]), "Correct its name, or remove it.")

    def _unsupported(self, field: str, remedy: str) -> Problem:
        return invalid(
            f"The server of model '{self.model}' does not support the field '{field}'. {remedy}",
            field,
            UNSUPPORTED,
        )


def parse_completion(
    body: JsonObject, endpoint: Endpoint, engine: str | None = None
) -> CompletionRequest:
    """Check a body. Raises Problem. engine: the model in the URL, in the API before /completions.

    A field that is not in `FIELDS` is checked as soon as the server is known.
    """
    found = {key: value for key, value in body.items() if value is not None}
    model = _model(found.pop("model", None), engine)
    for field, check in FIELDS[endpoint].items():
        if field in found:
            check(found[field], field)
    _RULES[endpoint](found)
    if "stream_options" in found and not found.get("stream"):
        raise invalid("The field 'stream_options' needs 'stream': true.", "stream_options")
    return CompletionRequest(endpoint, model, found)


def _model(model: Any, engine: str | None) -> str:
    name = engine if model is None else model
    if name is None:
        raise invalid("The field 'model' is missing. Set it to the name of a model.", "model")
    if not isinstance(name, str) or not name:
        raise reject("model", name, "the name of a model")
    if engine is not None and name != engine:
        raise invalid(
            "The field 'model' names another model than the URL. Remove the field.", "model"
        )
    if len(name) > MODEL_CHARACTERS:
        raise unknown_model(name)
    return name


def unknown_model(name: str) -> Problem:
    shown = sanitize(name if len(name) <= MODEL_CHARACTERS else f"{name[:40]}...")
    return missing(
        f"The model '{shown}' does not exist, or you may not use it. GET /v1/models lists yours.",
        "model",
        "model_not_found",
    )


def _check_completion(body: JsonObject) -> None:
    if "prompt" not in body:
        raise invalid("The field 'prompt' is missing. Set it to the text to complete.", "prompt")
    best_of, choices = body.get("best_of"), body.get("n", 1)
    if best_of is None:
        return
    if best_of < choices:
        raise invalid(
            f"The field 'best_of' is {best_of}, less than n, which is {choices}. Raise best_of.",
            "best_of",
        )
    if best_of > choices and body.get("stream"):
        raise invalid(
            "A stream cannot select the best of several completions. Remove 'best_of' or 'stream'.",
            "best_of",
        )


def _check_chat(body: JsonObject) -> None:
    if "messages" not in body:
        raise invalid("The field 'messages' is missing. Set it to the chat so far.", "messages")
    if "top_logprobs" in body and not body.get("logprobs"):
        raise invalid("The field 'top_logprobs' needs 'logprobs': true.", "top_logprobs")


_RULES: Mapping[Endpoint, Callable[[JsonObject], None]] = {
    Endpoint.COMPLETIONS: _check_completion,
    Endpoint.CHAT: _check_chat,
}
