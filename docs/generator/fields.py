"""The fields of the custom resources, from the CRDs' own schema."""

from collections.abc import Iterator
from typing import Any

from docs.generator.markdown import HEADER, code, sentence, table
from docs.generator.status_words import MODEL_STATUS, STATUS
from finetune_api.crd import finetune_crd, model_crd
from finetune_api.finetune import MUTABLE_FIELDS, SPEC_RULES

Schema = dict[str, Any]

FINETUNE = """# FineTune: spec

`finetune.dev/v1alpha1`, kind `FineTune`, short name `ft`, namespaced. Only `trainingFile` must be
given. A name has at most 63 characters.

A field that is **fixed** changes what is trained: the API server refuses to change it once the
FineTune is there. Create a new one instead.

"""
FINETUNE_STATUS = """# FineTune: status

Written by the operator alone. It outlives the pods: what is here is still here when they are gone.
[States and conditions](../gitops.md#when-is-it-done) says what to wait for.

"""
MODEL = """# Model

`finetune.dev/v1alpha1`, kind `Model`, namespaced. The operator makes one for each fine-tuned model;
it has no owner, so it stays when its FineTune goes. Only `deletionPolicy` may change.

"""


def pages() -> dict[str, str]:
    """Page -> text."""
    finetune, model = _root(finetune_crd()), _root(model_crd())
    return {
        "reference/finetune.md": HEADER + FINETUNE + _spec(finetune["spec"]) + _rules(),
        "reference/status.md": HEADER + FINETUNE_STATUS + _status(finetune["status"], STATUS),
        "reference/model.md": (
            HEADER
            + MODEL
            + "## spec\n\n"
            + _spec(model["spec"], {"deletionPolicy"})
            + "\n## status\n\n"
            + _status(model["status"], MODEL_STATUS)
        ),
    }


def paths(schema: Schema, before: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """(dotted path, its schema, whether it must be given), a parent before its parts."""
    required = schema.get("required", [])
    for name, item in schema.get("properties", {}).items():
        path = f"{before}{name}"
        yield path, item, name in required
        if item.get("type") == "array" and "properties" in item["items"]:
            yield from paths(item["items"], f"{path}[].")
        else:
            yield from paths(item, f"{path}.")


def status_paths() -> set[str]:
    """Every field of FineTune's status."""
    return {path for path, _, _ in paths(_root(finetune_crd())["status"])}


def _root(crd: Schema) -> Schema:
    (version,) = crd["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def _spec(schema: Schema, mutable: set[str] | frozenset[str] = MUTABLE_FIELDS) -> str:
    rows = [
        [
            code(path) + (" **required**" if is_required and "." not in path else ""),
            _type(item),
            _default(item),
            "" if path.split(".")[0].removesuffix("[]") in mutable else "fixed",
            sentence(item.get("description", "")),
        ]
        for path, item, is_required in paths(schema)
    ]
    return table(["field", "type and bounds", "default", "", "what"], rows)


def _status(schema: Schema, words: dict[str, str]) -> str:
    rows = [[code(path), _type(item), words.get(path, "")] for path, item, _ in paths(schema)]
    return table(["field", "type", "what"], rows)


def _type(item: Schema) -> str:
    kind = item.get("type", "")
    if "enum" in item:
        return ", ".join(code(value) for value in item["enum"])
    if kind == "array":
        inner = item["items"].get("type", "")
        return f"list of {inner}s, at most {item['maxItems']}" if "maxItems" in item else "list"
    if kind == "object" and "additionalProperties" in item:
        return "map of strings"
    return f"{kind}{_bounds(item)}"


def _bounds(item: Schema) -> str:
    low, high = item.get("minimum"), item.get("maximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    if low is not None:
        return f", at least {low:,}"
    if item.get("type") == "string" and "maxLength" in item:
        return f", at most {item['maxLength']:,} characters"
    return ""


def _default(item: Schema) -> str:
    if "default" not in item or item["default"] == {}:
        return ""
    value = item["default"]
    return code(str(value).lower() if isinstance(value, bool) else value)


def _rules() -> str:
    rows = [[sentence(message)] for _, message in SPEC_RULES]
    return "\n## Rules across fields\n\nThe API server refuses what breaks one.\n\n" + table(
        ["rule"], rows
    )
