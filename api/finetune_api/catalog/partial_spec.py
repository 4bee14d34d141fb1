"""A partial spec of a FineTune that an administrator sets for a base model of the catalog."""

from typing import Annotated, Final

from pydantic import AfterValidator, ValidationError

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.unknown_fields import find_unknown_fields
from finetune_api.wire import JsonObject

_OF_REQUEST = "each FineTune has its own"
_OF_RELEASE = "the chart values `output` and `secretName` set it for all models"
_OF_LIFE = "it controls the life of one FineTune"
# Why a base model cannot set a field. With another output or Secret, the results could not be read
# and uploaded files not be found; a request still may set both.
REFUSED: Final = {
    "model": _OF_REQUEST,
    "suffix": _OF_REQUEST,
    "trainingFile": _OF_REQUEST,
    "trainingFiles": _OF_REQUEST,
    "validationFile": _OF_REQUEST,
    "output": _OF_RELEASE,
    "storage": _OF_RELEASE,
    "suspend": _OF_LIFE,
    "cancel": _OF_LIFE,
    "dryRun": _OF_LIFE,
}
_ANY_FILE: Final = "s3://bucket/train.jsonl"


def allowed_fields() -> list[str]:
    """The fields of a spec that a partial spec may have."""
    found = (field.alias or name for name, field in FineTuneSpec.model_fields.items())
    return [name for name in found if name not in REFUSED]


def check_partial_spec(value: JsonObject) -> JsonObject:
    """The same fields, without those that are null.

    Raise ValueError with the field and the rule. The API server checks the rules across fields.
    """
    for name, reason in REFUSED.items():
        if name in value:
            raise ValueError(f"{name} cannot be set for a base model: {reason}. Remove it.")
    unknown = next(find_unknown_fields(value, FineTuneSpec), None)
    if unknown is not None:
        where = f"{unknown.path}.{unknown.key[:60]}" if unknown.path else unknown.key[:60]
        raise ValueError(f"{where} is not a field of a FineTune. Correct its name, or remove it.")
    try:
        spec = FineTuneSpec.model_validate({**value, "trainingFile": _ANY_FILE}, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        )
        raise ValueError(f"{where.removeprefix('.')}: {first['msg']}.") from None
    found: JsonObject = spec.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude_none=True, exclude={"training_file"}
    )
    return found


PartialSpec = Annotated[JsonObject, AfterValidator(check_partial_spec)]
