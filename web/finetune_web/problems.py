"""The errors that clients see, in OpenAI's envelope.

Every answer other than 2xx has this form: OpenAI's clients up to 0.28 stop with "Invalid response
object" otherwise. The sentence says what happened, where, and what to do.
"""

from __future__ import annotations

from enum import StrEnum

from finetune_api.wire import JsonObject


class Kind(StrEnum):
    """Values of `type`, as OpenAI's API has them."""

    REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    QUOTA = "insufficient_quota"
    BUSY = "rate_limit_error"
    SERVER = "server_error"


class Problem(Exception):  # noqa: N818 - also the value of an answer
    """An answer other than 2xx, or the error that ends a stream."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: Kind = Kind.REQUEST,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        """status: of HTTP. Never 409 but for a model that loads: old clients repeat it at once.

        param: the field of the request that the error is about. retry_after: seconds.
        should_retry: whether the new clients repeat the request; None: they decide by the status.
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
        """The body of the answer, and of an error within a stream."""
        return {
            "error": {
                "message": self.message,
                "type": str(self.kind),
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


def missing(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """404: no such object."""
    return Problem(404, message, param=param, code=code)


def unknown_url(method: str, path: str) -> Problem:
    return missing(f"Unknown request URL: {method} {path}", code="unknown_url")


def undecodable() -> Problem:
    return invalid(
        "The body of the request cannot be decoded. Send it without Content-Encoding, or in gzip.",
        code="invalid_encoding",
    )


def unavailable(message: str, seconds: int = 5) -> Problem:
    """503: a later request can succeed."""
    return Problem(503, message, kind=Kind.SERVER, code="service_unavailable", retry_after=seconds)


def internal(server: str, request_id: str) -> Problem:
    """500: an error of the server, whose trace is in its log. server: "gateway"."""
    return Problem(
        500,
        f"The {server} has an internal error. Its log has the details under request id "
        f"{request_id}.",
        kind=Kind.SERVER,
        code="internal_error",
    )
