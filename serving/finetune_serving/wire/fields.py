"""Checks of single fields of a JSON body. Each raises Problem with the name of the field."""

from __future__ import annotations

import json
from typing import Any

from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject
from finetune_web.problems import Problem, invalid

SHOWN_CHARACTERS = 40
MOST_STOPS = 4
MOST_PROMPTS = 2048
MOST_BIASES = 1024
TOKEN = range(2**31)


class Fields:
    """The fields of a body that are not null. `rest` are those that were not taken yet."""

    def __init__(self, body: JsonObject) -> None:
        self.rest = {key: value for key, value in body.items() if value is not None}

    def take(self, name: str) -> Any:
        return self.rest.pop(name, None)

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise reject(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.take(name)
        if value is not None and not is_integer(value, low, high):
            raise reject(name, value, f"an integer from {low} to {high}")
        return value if value is None else int(value)

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise reject(name, value, "true or false")
        return bool(value)

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise reject(name, value, "a text")
        return value

    def stops(self) -> tuple[str, ...]:
        value = self.take("stop")
        if value is None:
            return ()
        stops = value if isinstance(value, list) else [value]
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise reject("stop", value, "a text, or a list of texts, none of which is empty")
        if len(stops) > MOST_STOPS:
            raise invalid(
                f"The field 'stop' has {len(stops)} texts. Use at most {MOST_STOPS}.", "stop"
            )
        return tuple(stops)

    def logit_bias(self) -> dict[int, float]:
        value = self.take("logit_bias")
        if value is None:
            return {}
        expected = f"an object of up to {MOST_BIASES} tokens, each with a number from -100 to 100"
        if not isinstance(value, dict) or len(value) > MOST_BIASES:
            raise reject("logit_bias", value, expected)
        found = {}
        for key, bias in value.items():
            is_token = key.isascii() and key.isdigit() and len(key) < 10
            is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
            if not is_token or not is_number or not -100 <= bias <= 100:
                raise reject("logit_bias", {key: bias}, expected)
            found[int(key)] = float(bias)
        return found

    def stream_options(self, *, is_streamed: bool) -> bool:
        """Whether a stream ends with the number of tokens."""
        value = self.take("stream_options")
        if value is None:
            return False
        if not is_streamed:
            raise invalid("The field 'stream_options' needs 'stream': true.", "stream_options")
        if not isinstance(value, dict) or set(value) - {"include_usage", "include_obfuscation"}:
            raise reject("stream_options", value, "an object with include_usage")
        if value.get("include_obfuscation"):
            raise reject("stream_options.include_obfuscation", True, "false or missing")
        wants = value.get("include_usage")
        if wants is not None and not isinstance(wants, bool):
            raise reject("stream_options.include_usage", wants, "true or false")
        return bool(wants)

    def prompts(self) -> tuple[str | list[int], ...]:
        value = self.take("prompt")
        if value is None:
            raise invalid(
                "The field 'prompt' is missing. Set it to the text to complete.", "prompt"
            )
        if isinstance(value, str) or _is_tokens(value):
            return (value,)
        if not isinstance(value, list) or not (
            all(isinstance(it, str) for it in value) or all(map(_is_tokens, value))
        ):
            raise reject(
                "prompt", value, "a text, a list of tokens, or a list of several of one kind"
            )
        if not 0 < len(value) <= MOST_PROMPTS:
            raise invalid(
                f"The field 'prompt' has {len(value):,} prompts. Use 1 to {MOST_PROMPTS:,}.",
                "prompt",
            )
        return tuple(value)


def reject(param: str, value: Any, expected: str) -> Problem:
    """The error about a value. expected: a noun phrase, such as `a number from 0 to 2`."""
    shown = json.dumps(value, ensure_ascii=False)
    if len(shown) > SHOWN_CHARACTERS:
        shown = f"{shown[:SHOWN_CHARACTERS]}..."
    return invalid(f"The field '{param}' must be {expected}, not {sanitize(shown)}.", param)


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether it is an integer within the bounds. A boolean is none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_tokens(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(is_integer(it, TOKEN.start, TOKEN.stop - 1) for it in value)
    )
