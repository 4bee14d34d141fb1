"""The errors that only the gateway has, in OpenAI's envelope."""

from __future__ import annotations

from finetune_web.problems import Kind, Problem
from finetune_web.problems import internal as internal_error


def forbidden(message: str) -> Problem:
    return Problem(403, message, kind=Kind.PERMISSION, code="permission_denied")


def unauthenticated(message: str, code: str = "invalid_api_key") -> Problem:
    return Problem(401, message, kind=Kind.AUTHENTICATION, code=code)


def internal(request_id: str) -> Problem:
    return internal_error("gateway", request_id)
