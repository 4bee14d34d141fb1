"""The custom resource definitions, generated from the pydantic models.

An API server rejects much of the schema that pydantic generates ($ref, anyOf with null, title,
const). An unknown keyword raises an error, so that a developer notices it here before a user does.
"""

from collections.abc import Sequence, Set

from pydantic import BaseModel

from finetune_api import names
from finetune_api.crd.rules import (
    MODEL_RULES,
    MUTABLE_FIELDS,
    MUTABLE_MODEL_FIELDS,
    NEW_RULES,
)
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.model import ModelSpec, ModelStatus
from finetune_api.wire import JsonObject

Schema = JsonObject
Column = tuple[str, str, str, str]  # name, path, type, description

KEPT = frozenset(
    {
        "type",
        "description",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
        "required",
        "default",
    }
)
DROPPED = frozenset({"title", "$defs"})
FIXED = "cannot be changed once created: create a new object instead"
NAME_CHARACTERS = 63  # the name of a FineTune becomes the value of a label


def finetune_crd() -> Schema:
    spec = structural(FineTuneSpec)
    _fix(spec, MUTABLE_FIELDS)
    columns = [
        ("STATE", ".status.state", "string", "State of the FineTune."),
        ("MODEL", ".spec.model", "string", "Base model."),
        ("PROGRESS", ".status.progress.percent", "string", "Completed share of the steps."),
        ("LOSS", ".status.progress.loss", "number", "Training loss of the last step."),
        ("ETA", ".status.progress.eta", "string", "Estimated time of the end of training."),
        ("FINE-TUNED MODEL", ".status.fineTunedModel", "string", "Name of the fine-tuned model."),
        ("AGE", ".metadata.creationTimestamp", "date", ""),
    ]
    wide = [
        ("REASON", ".status.reason", "string", "Cause of the state in one word."),
        ("MESSAGE", ".status.message", "string", "Cause of the state in one sentence."),
    ]
    schema = _root(
        "FineTune",
        "A fine-tune job: it trains a base model on data and publishes the result.",
        spec,
    )
    schema["properties"]["status"] = {**_status(FineTuneStatus), "x-kubernetes-map-type": "atomic"}
    return _crd("FineTune", "finetunes", ["ft"], schema, columns, wide=wide)


def model_crd() -> Schema:
    spec = structural(ModelSpec)
    _fix(spec, MUTABLE_MODEL_FIELDS)
    columns = [
        ("ID", ".spec.id", "string", "Name of the model."),
        (
            "BASE",
            ".spec.base",
            "string",
            "Catalog model at the start of the chain.",
        ),
        ("TOKENS", ".spec.trainedTokens", "integer", "Number of tokens trained on."),
        ("SERVING", ".status.serving.state", "string", "State of the pods that serve the model."),
        ("AGE", ".metadata.creationTimestamp", "date", ""),
    ]
    schema = _root("Model", "A fine-tuned model. It outlives the FineTune that trained it.", spec)
    schema["properties"]["status"] = _status(ModelStatus)
    return _crd("Model", "models", [], schema, columns)


def _status(model: type[BaseModel]) -> Schema:
    status = structural(model, keep_defaults=False)
    status["properties"]["conditions"]["x-kubernetes-list-type"] = "map"
    status["properties"]["conditions"]["x-kubernetes-list-map-keys"] = ["type"]
    return status


def structural(model: type[BaseModel], *, keep_defaults: bool = True) -> Schema:
    """The structural schema of a model, as apiextensions.k8s.io/v1 requires it."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(raw, raw.get("$defs", {}), keep_defaults, model.__name__)


def _convert(raw: Schema, defs: Schema, keep_defaults: bool, where: str) -> Schema:
    raw = _inlined(raw, defs)
    found: Schema = {}
    for keyword, value in raw.items():
        if keyword in DROPPED or (keyword == "additionalProperties" and value is False):
            continue
        if keyword == "properties":
            found[keyword] = {
                name: _convert(item, defs, keep_defaults, f"{where}.{name}")
                for name, item in value.items()
            }
        elif keyword in {"items", "additionalProperties"}:
            found[keyword] = _convert(value, defs, keep_defaults, f"{where}[]")
        elif keyword == "const":
            found["enum"] = [value]
        elif keyword == "default":
            if keep_defaults and value is not None:
                # The properties of an object have defaults of their own.
                found["default"] = {} if isinstance(value, dict) else value
        elif keyword in KEPT:
            found[keyword] = " ".join(value.split()) if keyword == "description" else value
        else:
            raise ValueError(f"{where}: no structural form is known for {keyword}: {value!r}")
    if found.get("type") == "array":
        found["x-kubernetes-list-type"] = "atomic"
    lowest = found.get("minimum", 0)
    if lowest != int(lowest):
        # an API server compares whole numbers with the whole part of the minimum, so that 0 passes
        found["x-kubernetes-validations"] = [
            {
                "rule": f"self >= {lowest}",
                "message": f"should be greater than or equal to {lowest}",
            }
        ]
    return found


def _inlined(raw: Schema, defs: Schema) -> Schema:
    """Resolve $ref, and treat `X | None` as an optional X. The field's keywords take precedence."""
    while "$ref" in raw or "anyOf" in raw:
        rest = {key: value for key, value in raw.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in raw:
            raw = {**defs[raw["$ref"].rsplit("/", 1)[-1]], **rest}
            continue
        options = [item for item in raw["anyOf"] if item != {"type": "null"}]
        if len(options) != 1:
            raise ValueError(f"a union has no structural form: {raw['anyOf']!r}")
        raw = {**options[0], **rest}
    return raw


def _fix(spec: Schema, mutable: Set[str]) -> None:
    """Let no field change but the mutable ones.

    A rule of a field is evaluated only where both versions have it, so that a rule of the spec
    finds the optional fields that are added or removed.
    """
    optional = []
    for field, schema in spec["properties"].items():
        if field in mutable:
            continue
        rule = {"rule": "self == oldSelf", "message": f"{field} {FIXED}"}
        schema.setdefault("x-kubernetes-validations", []).append(rule)
        if "default" not in schema and field not in spec.get("required", []):
            optional.append(field)
    if optional:
        stays = {field: f"has(self.{field}) == has(oldSelf.{field})" for field in optional}
        first = "".join(f"!({rule}) ? '{field}' : " for field, rule in stays.items())
        spec["x-kubernetes-validations"] = [
            {
                "rule": " && ".join(stays.values()),
                "message": f"a field {FIXED}",
                "messageExpression": f"({first}'a field') + ' {FIXED}'",
            }
        ]


def _root(kind: str, description: str, spec: Schema) -> Schema:
    rules = []
    if kind == "FineTune":
        message = f"metadata.name may have at most {NAME_CHARACTERS} characters"
        rule = f"size(self.metadata.name) <= {NAME_CHARACTERS}"
        rules = [
            {"rule": rule, "message": message},
            *({"rule": rule, "message": message} for rule, message in NEW_RULES),
        ]
    if kind == "Model":
        rules = [{"rule": rule, "message": message} for rule, message in MODEL_RULES]
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
        },
        **({"x-kubernetes-validations": rules} if rules else {}),
    }


def _column(column: Column) -> Schema:
    name, path, kind_of, description = column
    printed = {"name": name, "jsonPath": path, "type": kind_of}
    return printed | ({"description": description} if description else {})


def _crd(
    kind: str,
    plural: str,
    short_names: list[str],
    schema: Schema,
    columns: list[Column],
    *,
    wide: Sequence[Column] = (),
) -> Schema:
    """Build the definition. wide: columns that only `kubectl get -o wide` shows."""
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            *(_column(column) for column in columns),
            *(_column(column) | {"priority": 1} for column in wide),
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                **({"shortNames": short_names} if short_names else {}),
            },
            "versions": [version],
        },
    }
