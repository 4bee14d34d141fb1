"""From a request to the manifest of a FineTune.

Three parts make the spec, each over the ones before: the administrator's for the model (the
catalog's `fineTune`), the request's `finetune`, and the request's own fields.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.names import ANNOTATION_METADATA, API_VERSION, LABEL_REQUEST
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_gateway.wire.ids import parse_artifact
from finetune_gateway.wire.object_marks import write_metadata
from finetune_gateway.wire.request_bodies import CreationBody
from finetune_gateway.wire.request_fields import EXTENSION
from finetune_web.problems import Problem, invalid

S3_SCHEME = "s3://"
# The API server accepts one of each pair. The request's replaces the other one of the catalog.
_ALTERNATIVES = {
    "learningRate": "learningRateMultiplier",
    "learningRateMultiplier": "learningRate",
    "trainingFile": "trainingFiles",
    "trainingFiles": "trainingFile",
}


def build_finetune(
    body: CreationBody,
    *,
    name: str,
    label: str,
    defaults: JsonObject,
    addresses: Mapping[str, str],
) -> JsonObject:
    """The manifest. Raise Problem for a file without an address, and for conflicting fields.

    label: of the request. defaults: the administrator's part of the spec. addresses: of the
    uploaded files that the body names, by id.
    """
    own = _own_fields(body, addresses)
    conflict = _find_conflict(own, body.extension)
    if conflict is not None:
        param = body.fields.own.get(conflict, conflict)
        raise invalid(
            f"{param} and {EXTENSION}.{conflict} differ. Set only one of them.",
            param,
            "conflicting_fields",
        )
    metadata: JsonObject = {"name": name, "labels": {LABEL_REQUEST: label}}
    if body.metadata is not None:
        metadata["annotations"] = {ANNOTATION_METADATA: write_metadata(body.metadata)}
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTune",
        "metadata": metadata,
        "spec": _over(defaults, merge(body.extension, own)),
    }


def merge(base: JsonObject, patch: JsonObject) -> JsonObject:
    """A JSON merge patch: objects are merged, null removes a field, anything else replaces it."""
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _over(defaults: JsonObject, spec: JsonObject) -> JsonObject:
    """The administrator's part below the request's."""
    requested = spec.get("hyperparameters")
    chosen = {*spec, *(requested if isinstance(requested, dict) else {})}

    def without_replaced(part: JsonObject) -> JsonObject:
        return {key: value for key, value in part.items() if _ALTERNATIVES.get(key) not in chosen}

    below = without_replaced(defaults)
    if isinstance(below.get("hyperparameters"), dict):
        below["hyperparameters"] = without_replaced(below["hyperparameters"])
    return merge(below, spec)


def named_files(body: CreationBody) -> list[str]:
    """The files of the request that are not addresses."""
    files = (body.training_file, body.validation_file)
    return [file for file in files if file is not None and not file.startswith(S3_SCHEME)]


def unknown_model(model: str) -> Problem:
    return invalid(
        f"The model {model[:200]!r} does not exist. GET /v1/models lists the base models, and the "
        "fine-tuned models whose training you can continue.",
        "model",
        "model_not_found",
    )


def _own_fields(body: CreationBody, addresses: Mapping[str, str]) -> JsonObject:
    found: JsonObject = {"model": body.model}
    if body.suffix is not None:
        found["suffix"] = body.suffix
    if body.training_file is not None:
        found["trainingFile"] = _address(body.training_file, "training_file", addresses)
    if body.validation_file is not None:
        found["validationFile"] = _address(body.validation_file, "validation_file", addresses)
    if body.hyperparameters:
        found["hyperparameters"] = body.hyperparameters
    return found


def _address(file: str, param: str, addresses: Mapping[str, str]) -> str:
    if file in addresses:
        return addresses[file]
    shown = f"{file[:200]!r}"
    if file.startswith(S3_SCHEME):
        try:
            uri = S3Uri.parse(file)
        except ValueError as error:
            raise invalid(f"{param}: {str(error)[:400]}.", param, "invalid_value") from error
        if not uri.key:
            raise invalid(f"{param}: {shown} is a bucket, not a file.", param, "invalid_value")
        return file
    if parse_artifact(file) is not None:
        raise invalid(
            f"{param}: {shown} is a result of a fine-tune, not a file with examples. Upload a file "
            "with the purpose fine-tune.",
            param,
            "invalid_purpose",
        )
    raise invalid(
        f"{param}: there is no file {shown} here, and none of that name was uploaded. Upload it "
        "with the purpose fine-tune, or use the s3:// address of a file.",
        param,
        "file_not_found",
    )


def _find_conflict(own: JsonObject, extension: JsonObject) -> str | None:
    """The path of the first field that both have with different values."""
    for key, value in own.items():
        other = extension.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            below = _find_conflict(value, other)
            if below is not None:
                return f"{key}.{below}"
        elif other is not None and other != value:
            return key
    return None
