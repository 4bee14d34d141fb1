"""The objects around the choices of an answer, and the parts of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

from finetune_api.wire import JsonObject
from finetune_serving.wire.requests import CompletionRequest


class Usage(NamedTuple):
    """Numbers of tokens of one request."""

    prompt: int
    completion: int

    def to_json(self) -> JsonObject:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


class Envelope:
    """Makes the answer to one request. All parts of a stream have the same id."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._id = f"{'chatcmpl' if request.is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._created = int(time.time())

    def answer(self, choices: Sequence[JsonObject], usage: Usage) -> JsonObject:
        kind = "chat.completion" if self._request.is_chat else "text_completion"
        return {**self._object(kind, choices), "usage": usage.to_json()}

    def part(self, choice: JsonObject) -> JsonObject:
        """One part of a stream."""
        found = self._object(self._part_kind, [choice])
        return {**found, "usage": None} if self._request.wants_usage else found

    def last_part(self, usage: Usage) -> JsonObject:
        """The part with the number of tokens."""
        return {**self._object(self._part_kind, []), "usage": usage.to_json()}

    @property
    def _part_kind(self) -> str:
        return "chat.completion.chunk" if self._request.is_chat else "text_completion"

    def _object(self, kind: str, choices: Sequence[JsonObject]) -> JsonObject:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._request.model,
            "choices": [*choices],
        }


def model_object(name: str, created: int) -> JsonObject:
    return {"id": name, "object": "model", "created": created, "owned_by": "finetune"}
