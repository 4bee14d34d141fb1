"""The data files of a task: their places in the dataset, and the fields that messages name."""

from __future__ import annotations

from typing import NamedTuple

from finetune_api.tasks import PrepareTask
from finetune_api.uris import S3Uri
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.tokenize.dataset import TRAIN, VALIDATION


class DataFile(NamedTuple):
    """A data file of the spec."""

    name: str  # in the dataset's manifest: that of its split, or `train-0`, `train-1`, ...
    split: str
    param: str  # the field of the spec
    uri: S3Uri


def data_files(task: PrepareTask) -> list[DataFile]:
    """The training files in their order, and the validation file.

    Raises DataError for an invalid address, and for two addresses of one training file.
    """
    files = [_training_file(index, uri, task) for index, uri in enumerate(_training_uris(task))]
    for index, file in enumerate(files):
        for other in files[:index]:
            if file.uri == other.uri:
                raise DataError(failures.repeated_file(file.param, other.param))
    if task.validation_file is not None:
        param = "validationFile"
        files.append(DataFile(VALIDATION, VALIDATION, param, _parse(task.validation_file, param)))
    return files


def training_weights(task: PrepareTask) -> list[float] | None:
    """The weights of several training files; None if they have none."""
    weights = [file.weight for file in task.training_files or []]
    given = [weight for weight in weights if weight is not None]
    return given if given and len(given) == len(weights) > 1 else None


def _training_uris(task: PrepareTask) -> list[str]:
    return [file.uri for file in task.training_files or []] or [task.training_file]


def _training_file(index: int, uri: str, task: PrepareTask) -> DataFile:
    if len(task.training_files or []) < 2:
        return DataFile(TRAIN, TRAIN, "trainingFile", _parse(uri, "trainingFile"))
    param = f"trainingFiles[{index}]"
    return DataFile(f"{TRAIN}-{index}", TRAIN, param, _parse(uri, f"{param}.uri"))


def _parse(text: str, param: str) -> S3Uri:
    try:
        return S3Uri.parse(text)
    except ValueError as error:
        raise DataError(failures.invalid_address(error, param)) from error
