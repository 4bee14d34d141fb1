"""The exception that carries a Failure."""

from typing import Self

from finetune_api.outcome import Failure


class FailureError(Exception):
    """Something went wrong that the `failure` explains: code, one plain sentence, spec field."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def of(
        cls, code: str, message: str, *, param: str | None = None, hint: str | None = None
    ) -> Self:
        """`code` is one of names.Reason."""
        return cls(Failure(code=code, message=message, param=param, hint=hint))

    def about(self, param: str) -> Self:
        """The same error, pointing at a field of the spec unless it already does."""
        return type(self)(self.failure.replace(param=self.failure.param or param))
