"""The errors that clients see, in OpenAI's envelope.

OpenAI's clients up to 0.28 stop with "Invalid response object" at any other answer that is not 2xx.
"""

from __future__ import annotations

from finetune_api.wire import JsonObject

REQUEST, SERVER = "invalid_request_error", "server_error"
LOADING = "model_loading"


class Problem(Exception):  # noqa: N818 - also the value of an answer
    """An answer other than 2xx, or the error that ends a stream."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = REQUEST,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        """param: the field of the request. retry_after: seconds.

        should_retry: whether clients repeat the request; None: they decide by the status.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.should_retry = should_retry

    @property
    def envelope(self) -> JsonObject:
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        found = {}
        if self.retry_after is not None:
            found["Retry-After"] = str(self.retry_after)
        if self.should_retry is not None:
            found["x-should-retry"] = str(self.should_retry).lower()
        return found


def invalid(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """400: the request has an error."""
    return Problem(400, message, param=param, code=code)


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
        kind="authentication_error",
        code="invalid_api_key",
    )


def unknown_url(method: str, path: str) -> Problem:
    return Problem(404, f"Unknown request URL: {method} {path}", code="unknown_url")


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
        kind=SERVER,
        code=LOADING,
        retry_after=5,
        should_retry=True,
    )


def busy(shown: str, waiting: int) -> Problem:
    return Problem(
        429,
        f"{waiting} requests for the model '{shown}' are waiting already. Try again later.",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=5,
    )


def unavailable(message: str, seconds: int = 5) -> Problem:
    """503: a later request can succeed."""
    return Problem(503, message, kind=SERVER, code="service_unavailable", retry_after=seconds)


def unusable(message: str) -> Problem:
    """503: the model cannot be used until its files or the settings of the server change."""
    return Problem(503, message, kind=SERVER, code="model_unusable", should_retry=False)


def internal(request_id: str) -> Problem:
    return Problem(
        500,
        f"The server has an internal error. Its log has the details under request id {request_id}.",
        kind=SERVER,
        code="internal_error",
    )
