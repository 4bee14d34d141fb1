"""The errors that only the completion server has, in OpenAI's envelope."""

from __future__ import annotations

from finetune_web.problems import Kind, Problem, invalid
from finetune_web.problems import internal as internal_error


def unsupported(param: str, remedy: str = "Remove the field.") -> Problem:
    """400: a field that this server does not have. It is never ignored."""
    message = f"This server does not support the field '{param}'. {remedy}"
    return invalid(message, param, "unsupported_parameter")


def too_long(used: int, requested: int, context: int, param: str) -> Problem:
    """400: the prompt and the completion do not fit into the context of the model."""
    return invalid(
        f"This model's maximum context length is {context:,} tokens. However, you requested "
        f"{used + requested:,} tokens ({used:,} in the prompt, {requested:,} for the completion). "
        "Shorten the prompt, or request fewer tokens.",
        param,
        "context_length_exceeded",
    )


def unauthenticated() -> Problem:
    return Problem(
        401,
        "The request has no valid secret of the gateway. Send completions to the gateway.",
        kind=Kind.AUTHENTICATION,
        code="invalid_api_key",
    )


def unknown_model(shown: str) -> Problem:
    return Problem(
        404,
        f"The model '{shown}' does not exist here. GET /v1/models lists the models of this server.",
        param="model",
        code="model_not_found",
    )


def loading(shown: str, seconds: float) -> Problem:
    """409, which clients up to 0.28 repeat at once: only for a request that has waited."""
    return Problem(
        409,
        f"The model '{shown}' is still loading after {seconds:.0f} s. Repeat the request.",
        kind=Kind.SERVER,
        code="model_loading",
        retry_after=5,
        should_retry=True,
    )


def busy(shown: str, waiting: int) -> Problem:
    return Problem(
        429,
        f"{waiting} requests for the model '{shown}' are waiting already. Try again later.",
        kind=Kind.BUSY,
        code="rate_limit_exceeded",
        retry_after=5,
    )


def unusable(message: str) -> Problem:
    """503: the model cannot be used until its files or the settings of the server change."""
    return Problem(503, message, kind=Kind.SERVER, code="model_unusable", should_retry=False)


def internal(request_id: str) -> Problem:
    return internal_error("server", request_id)
