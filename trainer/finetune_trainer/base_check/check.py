"""The whole check of a base model: its settings, the model on meta tensors, and its types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_data.confined.sections import Section, Subject
from finetune_data.failures import REPAIR_MODEL
from finetune_data.models.skeleton import Skeleton, read_skeleton
from finetune_trainer import base_model_failures
from finetune_trainer.base_check.causality import check_causality
from finetune_trainer.base_check.settings import check_settings
from finetune_trainer.base_check.stored_types import check_types, packed_method
from finetune_trainer.base_check.vocabulary import check_vocabulary
from finetune_trainer.engine.loading import load_on_meta
from finetune_trainer.engine.lora import check_targets

if TYPE_CHECKING:
    from torch.nn import Module

Report = Callable[[str], None]


def checking(name: str, seconds: float, memory: int) -> Section:
    """The section of a check of a base model. name: of the model. memory: bytes."""
    subject = Subject(
        f"the check of the model {name!r}",
        REPAIR_MODEL,
        str(Reason.BASE_MODEL_INVALID),
        param="model",
    )
    return Section(subject, seconds, memory)


def read_base(folder: Path) -> Skeleton:
    """The skeleton of a downloaded base model. Raises FailureError (BaseModelInvalid)."""
    try:
        return read_skeleton(folder)
    except ValueError as error:
        raise FailureError(base_model_failures.unreadable_weights(str(error))) from error


def check_base_model(base: Skeleton, report: Report, targets: Sequence[str] | None = None) -> None:
    """Check a base model as a training would load it.

    report: called with what could not be tested. targets: the layers of an adapter, if the user
    chose them. Raises FailureError (BaseModelInvalid; InvalidSpec for the targets).
    """
    inspect = inspection(base, report)
    try:
        model = load_on_meta(base.folder, "fp32")
    except FailureError as error:
        raise explained(error, base) from error
    inspect(model)
    check_targets(model, targets)


def inspection(
    base: Skeleton, report: Report, *, tests_causality: bool = True
) -> Callable[[Module], None]:
    """Check the settings of a model; the result checks the model on the meta device.

    tests_causality: whether to run a small copy of the model. Both raise FailureError.
    """
    config = check_settings(base.folder, base.tensors)

    def inspect(model: Module) -> None:
        check_types(base.tensors, model)
        check_vocabulary(base.folder, model)
        if tests_causality and (problem := check_causality(config)):
            report(f"whether the base model is causal was not tested: {problem}")

    return inspect


def explained(error: FailureError, base: Skeleton) -> FailureError:
    """The cause of a failed load: tensors of a quantized model explain it better than names."""
    if packed := packed_method(base.tensors):
        return FailureError(base_model_failures.quantized_base(*packed))
    return error
