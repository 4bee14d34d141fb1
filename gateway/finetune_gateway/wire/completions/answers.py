"""The answers of the servers that complete prompts, in the words of OpenAI's API.

A server's answer is not trusted: its errors become the envelope with a bounded message, and never
a status on which clients act in another way than the server means it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject, parse_json
from finetune_web.problems import Kind, Problem, unavailable

MESSAGE_CHARACTERS = 1000
LONGEST_RETRY_SECONDS = 120  # new clients do not wait longer
LOADING = "model_loading"
UNUSABLE = "model_unusable"  # of the completion server: the files are damaged, or too large
AWAY = "service_unavailable"  # of the same: its store does not answer, or it ends
_LOADING = re.compile(r"\bloading\b|model_loading|is being loaded", re.IGNORECASE)
_OVERLOADED = re.compile(r"overload|\bqueue|\bbusy\b|capacity|too many", re.IGNORECASE)
NOT_NOW = frozenset({LOADING, UNUSABLE, AWAY})  # codes that a status 503 has
_NOT_LOADING = frozenset({AWAY, "rate_limit_exceeded"})
_NO_TEMPLATE = re.compile(
    r"default chat template|chat_template is not set"
    r"|\b(no|any|have a|without a|provide a) chat template",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(r"context (length|size)|maximum model length|max_model_len", re.IGNORECASE)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MARKUP = re.compile(r"\s*<(!doctype|html|\?xml)", re.IGNORECASE)


class BackendLoads(Exception):  # noqa: N818 - a state, not an error
    """The server is there, but its model is not ready yet."""


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens of one completion."""

    prompt: int
    completion: int


@dataclass(frozen=True)
class Refusal:
    """What a server says in an error."""

    message: str  # one line, or empty
    code: str | None = None
    param: str | None = None


def renamed(answer: JsonObject, model: str) -> JsonObject:
    """The answer, or a part of a stream, with the model under the name that the client uses."""
    return {**answer, "model": model} if "model" in answer else answer


def usage_of(answer: JsonObject) -> Usage | None:
    found = answer.get("usage")
    if not isinstance(found, dict):
        return None
    return Usage(_count(found.get("prompt_tokens")), _count(found.get("completion_tokens")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < 2**40 else 0


def is_usage_only(part: JsonObject) -> bool:
    """Whether a part of a stream has the number of tokens and nothing else."""
    return part.get("choices") == [] and isinstance(part.get("usage"), dict)


def is_error(answer: JsonObject) -> bool:
    """Whether an answer with status 200, or a part of a stream, is an error."""
    if answer.get("error") and not answer.get("choices"):
        return True
    return answer.get("object") == "error"


def read_refusal(body: bytes) -> Refusal:
    """The error in an answer: OpenAI's envelope, vLLM's former form, FastAPI's, or plain text."""
    try:
        found = parse_json(body)
    except ValueError:
        text = body.decode(errors="replace")
        return Refusal("" if _MARKUP.match(text) else _bounded(text))
    return refusal_of(found)


def refusal_of(found: Any) -> Refusal:
    """The same of parsed JSON."""
    if isinstance(found, dict) and "error" in found:
        found = found["error"]
    if isinstance(found, str):
        return Refusal(_bounded(found))
    if not isinstance(found, dict):
        return Refusal("")
    message = found.get("message") or found.get("detail")
    if isinstance(message, list):  # FastAPI's list of errors with `msg`
        parts = [part.get("msg") for part in message if isinstance(part, dict)]
        message = "; ".join(part for part in parts if isinstance(part, str))
    code, param = found.get("code"), found.get("param")
    return Refusal(
        _bounded(message) if isinstance(message, str) else "",
        code if isinstance(code, str) and _CODE.fullmatch(code) else None,
        sanitize(param[:64]) if isinstance(param, str) else None,
    )


def _bounded(text: str) -> str:
    shown = sanitize(" ".join(text[: 2 * MESSAGE_CHARACTERS].split()))
    if len(shown) > MESSAGE_CHARACTERS:
        shown = f"{shown[:MESSAGE_CHARACTERS]}..."
    return shown


def refused(status: int, refusal: Refusal, server: str, retry_after: str | None = None) -> Problem:
    """The error for a client. server: what the messages call the server.

    Raises BackendLoads if the server says that its model loads.
    """
    message = refusal.message.rstrip(".")
    said = f": {message}." if message else f" with HTTP status {status}."
    match status:
        case 503 if refusal.code == UNUSABLE:
            return unusable(f"{server} cannot use the model{said}")
        case 503 | 429 if _loads(status, refusal):
            raise BackendLoads(refusal.message)
        case 409 if refusal.code == LOADING:
            raise BackendLoads(refusal.message)
        case 429:
            return Problem(
                429,
                f"{server} has too many requests{said}",
                kind=Kind.BUSY,
                code="rate_limit_exceeded",
                retry_after=_seconds(retry_after, 1),
            )
        case 400 | 413 | 422:
            return _invalid(refusal, f"{server} refuses the request{said}")
        case 401 | 403:
            return not_served(
                f"{server} refuses the key of the gateway{said} Set keyFile of the backend, or "
                "secretFile of the server, to a file with a valid key."
            )
        case 404 | 405:
            return not_served(
                f"{server} does not have this model, or does not complete prompts{said} Check the "
                "name of the model there, and the URL."
            )
        case 503 | 409:
            return unavailable(f"{server} cannot answer now{said}", _seconds(retry_after, 5))
    return broken(f"{server} failed{said}")


def _loads(status: int, refusal: Refusal) -> bool:
    if refusal.code in _NOT_LOADING:  # whatever the message is, which has the name of the model
        return False
    said = f"{refusal.code or ''} {refusal.message}"
    if status == 429:
        return _LOADING.search(said) is not None
    return _LOADING.search(said) is not None or _OVERLOADED.search(said) is None


def _invalid(refusal: Refusal, fallback: str) -> Problem:
    message, code = refusal.message or fallback, refusal.code
    if _NO_TEMPLATE.search(message):
        message = (
            "The model has no chat template: it was trained on prompts. Use /v1/completions. "
            f"Its server says: {message}"
        )
    elif code is None and _TOO_LONG.search(message):
        code = "context_length_exceeded"
    return Problem(400, message, code=code, param=refusal.param)


def _seconds(retry_after: str | None, default: int) -> int:
    if retry_after is None or not re.fullmatch(r"\d{1,6}", retry_after):
        return default
    return min(int(retry_after), LONGEST_RETRY_SECONDS)


def not_served(message: str) -> Problem:
    """503: no server answers for the model until an administrator or an owner acts."""
    return Problem(503, message, kind=Kind.SERVER, code="model_not_served", should_retry=False)


def not_started(model: str, said: str) -> Problem:
    """503: the pods of the model do not start. said: the cause, in the operator's words."""
    cause = _bounded(said).rstrip(".") or "its pods do not start"
    return not_served(f"The operator cannot serve the model '{model}': {cause}.")


def unusable(message: str) -> Problem:
    """503: the server answers for other models."""
    return Problem(503, message, kind=Kind.SERVER, code=UNUSABLE, should_retry=False)


def broken(message: str) -> Problem:
    """502: the server fails, or its answer cannot be understood."""
    return Problem(502, message, kind=Kind.SERVER, code="backend_error")


def loading(model: str, seconds: float, said: str) -> Problem:
    """409, on which clients up to 0.28 repeat a completion without end: only after a wait."""
    reason = f" ({said})" if said else ""
    return Problem(
        409,
        f"The model '{model}' is not ready after {seconds:.0f} s{reason}. Repeat the request.",
        kind=Kind.SERVER,
        code=LOADING,
        retry_after=5,
    )
