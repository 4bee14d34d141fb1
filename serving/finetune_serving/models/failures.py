"""The catalog of the failures of a published model's files, each with what to do about it."""

from __future__ import annotations

from pathlib import Path

from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_api.uris import S3Uri

_SPACE = (
    "set ephemeral-storage in the resources of the serving runtime (chart value serving.runtimes), "
    "so that its pods run on nodes with enough disk"
)


def missing_model(uri: S3Uri, endpoint: str) -> Failure:
    """There is no manifest."""
    return Failure(
        code=Reason.DATA_NOT_FOUND,
        message=f"there is no model at {uri} (endpoint {endpoint}): its files were deleted, or the "
        "address is wrong; restore the files, correct the address, or train the model again",
    )


def changed_manifest(uri: S3Uri) -> Failure:
    return Failure(
        code=Reason.MODEL_CHANGED,
        message=f"the manifest of the model at {uri} differs from the published one: restore the "
        "files, or train the model again",
    )


def damaged_model(uri: S3Uri, damage: str) -> Failure:
    """damage: says how a file differs from the manifest."""
    return Failure(
        code=Reason.MODEL_CHANGED,
        message=f"the model at {uri} is damaged: {damage}; restore the files, or train the model "
        "again",
    )


def no_published_model(uri: S3Uri, problem: str) -> Failure:
    """problem: why the files at the address are not those of a published model."""
    return Failure(
        code=Reason.INVALID_DATA,
        message=f"{uri} contains no published model, because {problem}: check the address, or "
        "train the model again",
    )


def unloadable_model(uri: S3Uri, problem: str) -> Failure:
    """problem: why no server can load the files, although they are those of the manifest."""
    return Failure(
        code=Reason.INVALID_DATA,
        message=f"{uri} contains no model that a server can load, because {problem}: check the "
        "address, or train the model again",
    )


def no_space(uri: S3Uri, folder: Path, *, needed: int, free: int) -> Failure:
    """needed, free: bytes."""
    return Failure(
        code=Reason.INTERNAL,
        message=f"the model at {uri} needs {needed / 1e9:,.1f} GB, but the volume at {folder} has "
        f"only {free / 1e9:,.1f} GB free: {_SPACE}",
    )


def full_volume(folder: Path) -> Failure:
    return Failure(code=Reason.INTERNAL, message=f"the volume at {folder} is full: {_SPACE}")


def download_crashed(error: BaseException, log: list[str]) -> Failure:
    """log: the last lines of the traceback."""
    message = f"the download of the model crashed: {type(error).__name__}: {error}"[:500]
    return Failure(code=Reason.INTERNAL, message=message, log=log)
