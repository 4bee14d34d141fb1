"""Errors of object storage."""

from finetune_api.errors import FailureError


class StorageError(FailureError):
    """S3 refused, lacks something or does not answer."""


class AlreadyExists(StorageError):  # noqa: N818 - says what happened; callers often expect it
    """A write that must not replace anything found the object there."""
