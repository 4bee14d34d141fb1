"""The refusals of the API server, and its silence, as an exception."""

from __future__ import annotations


class KubeError(Exception):
    """The API server refuses a request, or does not answer (status 0)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        causes: tuple[tuple[str, str], ...] = (),
        retry_after: int | None = None,
    ) -> None:
        """reason: of the Status, such as Forbidden. causes: pairs of a field and a message."""
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message
        self.reason = reason
        self.causes = causes
        self.retry_after = retry_after
