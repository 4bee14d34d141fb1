"""The bodies that create a fine-tune, as clients of both APIs send them.

A field that is null is a field that is left out. What a FineTune cannot do is refused by its name:
nothing is ignored. The values of hyperparameters are the API server's to check.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from finetune_api.wire import JsonObject
from finetune_gateway.wire.ids import Form
from finetune_gateway.wire.object_marks import (
    KEY_CHARACTERS,
    MOST_PAIRS,
    VALUE_CHARACTERS,
    is_metadata,
)
from finetune_gateway.wire.request_fields import (
    EXTENSION,
    FINE_TUNE_HYPERPARAMETERS,
    JOB_HYPERPARAMETERS,
    RequestFields,
    fine_tune_fields,
    job_fields,
)
from finetune_web.problems import Problem, invalid

AUTO = "auto"
DEFAULT_MODEL = "curie"  # of OpenAI's fine-tunes API
FINE_TUNE_SUFFIX, JOB_SUFFIX = 40, 64  # characters
_FILES = ("training_file", "validation_file")
_FINE_TUNE = frozenset({*_FILES, *FINE_TUNE_HYPERPARAMETERS, "model", "suffix", EXTENSION})
_JOB = frozenset(
    {*_FILES, "model", "suffix", "seed", "metadata", "method", "hyperparameters", EXTENSION}
)
_SUPERVISED = "method.supervised.hyperparameters"


@dataclass(frozen=True)
class CreationBody:
    """What a client wants to train."""

    model: str
    training_file: str | None  # an id or an address; None: the extension has trainingFiles
    validation_file: str | None
    suffix: str | None
    hyperparameters: JsonObject  # with the names of the spec
    metadata: dict[str, str] | None
    extension: JsonObject  # further fields of the spec
    fields: RequestFields


def parse_creation(body: JsonObject, form: Form) -> CreationBody:
    """Raise Problem with the field that is not acceptable."""
    given = {key: value for key, value in body.items() if value is not None}
    return _parse_fine_tune(given) if form == "fine-tune" else _parse_job(given)


def _parse_fine_tune(body: JsonObject) -> CreationBody:
    _refuse_unknown(body, _FINE_TUNE)
    extension = _object(body, EXTENSION)
    return CreationBody(
        model=_text(body, "model") or DEFAULT_MODEL,
        training_file=_training_file(body, extension),
        validation_file=_text(body, "validation_file"),
        suffix=_suffix(body, FINE_TUNE_SUFFIX),
        hyperparameters=_hyperparameters(body, FINE_TUNE_HYPERPARAMETERS),
        metadata=None,
        extension=extension,
        fields=fine_tune_fields(extension),
    )


def _parse_job(body: JsonObject) -> CreationBody:
    integrations = body.pop("integrations", [])
    if integrations != []:
        raise invalid(
            "integrations are not supported. Leave them out: results.csv and the events of the "
            "job have every metric.",
            "integrations",
            "unsupported_integration",
        )
    _refuse_unknown(body, _JOB)
    if "model" not in body:
        raise _required("model", "the name of a base model, or of a fine-tuned one")
    extension = _object(body, EXTENSION)
    hyperparameters, prefix = _job_hyperparameters(body)
    if body.get("seed", AUTO) != AUTO:
        hyperparameters["seed"] = body["seed"]
    return CreationBody(
        model=_text(body, "model") or "",
        training_file=_training_file(body, extension),
        validation_file=_text(body, "validation_file"),
        suffix=_suffix(body, JOB_SUFFIX),
        hyperparameters=hyperparameters,
        metadata=_metadata(body),
        extension=extension,
        fields=job_fields(extension, prefix),
    )


def _job_hyperparameters(body: JsonObject) -> tuple[JsonObject, str]:
    """The hyperparameters with the names of the spec, and where the request has them."""
    direct = _object(body, "hyperparameters")
    method = _object(body, "method")
    kind = method.get("type", "supervised")
    if kind != "supervised":
        raise invalid(
            f"The method {_shown(kind)} is not supported. Use the method supervised, or leave "
            "method out.",
            "method.type",
            "unsupported_method",
        )
    _refuse_unknown(method, {"type", "supervised"}, "method.")
    supervised = _object(method, "supervised", "method.")
    _refuse_unknown(supervised, {"hyperparameters"}, "method.supervised.")
    nested = _object(supervised, "hyperparameters", "method.supervised.")
    for prefix, found in (("hyperparameters", direct), (_SUPERVISED, nested)):
        _refuse_unknown(found, JOB_HYPERPARAMETERS, f"{prefix}.", "hyperparameters.")
    for name in direct.keys() & nested.keys():
        if direct[name] != nested[name]:
            raise invalid(
                f"hyperparameters.{name} and {_SUPERVISED}.{name} differ. Set only one of them.",
                f"hyperparameters.{name}",
                "conflicting_fields",
            )
    prefix = "hyperparameters" if direct else _SUPERVISED
    return _hyperparameters({**direct, **nested}, JOB_HYPERPARAMETERS), prefix


def _hyperparameters(values: JsonObject, names: Collection[str]) -> JsonObject:
    """The values with the names of the spec. `auto` is the operator's choice: it is left out."""
    return {to_camel(name): values[name] for name in names if values.get(name, AUTO) != AUTO}


def _training_file(body: JsonObject, extension: JsonObject) -> str | None:
    found = _text(body, "training_file")
    if not found and not extension.get("trainingFiles"):
        raise _required("training_file", "the id of an uploaded file, or an s3:// address")
    return found


def _suffix(body: JsonObject, most: int) -> str | None:
    found = _text(body, "suffix")
    if found is not None and len(found) > most:
        raise invalid(
            f"suffix has {len(found)} characters, but it may have at most {most}.",
            "suffix",
            "invalid_value",
        )
    return found


def _metadata(body: JsonObject) -> dict[str, str] | None:
    found = body.get("metadata")
    if found is not None and not is_metadata(found):
        raise invalid(
            f"metadata must be a JSON object of at most {MOST_PAIRS} texts, with keys of at most "
            f"{KEY_CHARACTERS} and values of at most {VALUE_CHARACTERS} characters.",
            "metadata",
            "invalid_value",
        )
    return found


def _text(body: JsonObject, name: str) -> str | None:
    """A text that is not empty. An empty one means none, as the command line sends it."""
    found = body.get(name)
    if found is not None and not isinstance(found, str):
        raise _wrong_type(name, "a string", found)
    return found or None


def _object(body: JsonObject, name: str, prefix: str = "") -> JsonObject:
    """A JSON object without its nulls, but those of the extension have a meaning."""
    found = body.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong_type(prefix + name, "a JSON object", found)
    if name == EXTENSION:
        return found
    return {key: value for key, value in found.items() if value is not None}


def _refuse_unknown(
    body: JsonObject, known: Collection[str], prefix: str = "", spec_prefix: str = ""
) -> None:
    """prefix: of the fields in the request. spec_prefix: of the fields in the spec."""
    unknown = next((key for key in body if key not in known), None)
    if unknown is None:
        return
    name = f"{prefix}{unknown[:100]}"
    raise invalid(
        f"{name} is not a field of this request. Correct its name, or remove it. Fields of a "
        f"FineTune's spec go into {EXTENSION}, as in "
        f'"{EXTENSION}": {{"{spec_prefix.rstrip(".") or "resources"}": {{...}}}}.',
        name,
        "unknown_field",
    )


def _required(name: str, content: str) -> Problem:
    return invalid(f"{name} is required: set it to {content}.", name, "missing_field")


def _wrong_type(name: str, expected: str, found: object) -> Problem:
    return invalid(f"{name} must be {expected}, but it is {_shown(found)}.", name, "invalid_type")


def _shown(value: object) -> str:
    """A short form of a JSON value for a message."""
    if isinstance(value, dict):
        return "a JSON object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)[:100]
