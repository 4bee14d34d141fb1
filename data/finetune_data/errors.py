"""The exceptions for data and base models."""

from finetune_api.errors import FailureError


class BaseModelError(FailureError):
    """The base model does not exist, or a trainer cannot load it."""


class DataError(FailureError):
    """A data file is missing or invalid."""
