"""Errors that a person can act on: each carries the Failure that ends up in the status."""

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


class StorageError(FailureError):
    """S3 refused, lacks something or does not answer."""


class AlreadyExists(StorageError):  # noqa: N818 - says what happened; callers often expect it
    """A write that must not replace anything found the object there."""


class BaseModelError(FailureError):
    """The base model is not there, or is not what a trainer can load."""


class DataError(FailureError):
    """A data file is not what it should be."""
