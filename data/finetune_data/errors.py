"""Errors in data and base models."""

from finetune_api.errors import FailureError


class BaseModelError(FailureError):
    """The base model is not there, or is not what a trainer can load."""


class DataError(FailureError):
    """A data file is not what it should be."""
