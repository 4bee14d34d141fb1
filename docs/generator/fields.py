"""The fields of the custom resources, from the CRDs' own schema."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from docs.generator.markdown import HEADER, code, sentence, table
from docs.generator.status_words import MODEL, MODEL_STATUS, SPEC, STATUS
from finetune_api.crd import finetune_crd, model_crd
from finetune_api.finetune_spec import MUTABLE_FIELDS, SPEC_RULES

Schema = dict[str, Any]
Row = Callable[[str, Schema, bool], list[str]]

FINETUNE = """# FineTune: spec

`finetune.dev/v1alpha1`, kind `FineTune`, short name `ft`, namespaced. Only `trainingFile` must be
given. A name has at most 63 characters.

Where it does not say **may change**, a field can't be changed once the FineTune is there: the API
server refuses. Create a new one instead.

"""
FINETUNE_STATUS = """# FineTune: status

Written by the operator alone. It outlives the pods: what is here is still here when they are gone.
[States and conditions](../gitops.md#when-is-it-done) says what to wait for.

"""
MODEL_HEAD = """# Model

`finetune.dev/v1alpha1`, kind `Model`, namespaced. The operator makes one for each fine-tuned model;
it has no owner, so it stays when its FineTune goes.

"""


def pages() -> dict[str, str]:
    """Page -> text."""
    finetune, model = _root(finetune_crd()), _root(model_crd())
    return {
        "reference/finetune.md": HEADER
        + FINETUNE
        + _spec(finetune["spec"], SPEC, MUTABLE_FIELDS)
        + _rules(),
        "reference/status.md": HEADER + FINETUNE_STATUS + _status(finetune["status"], STATUS),
        "reference/model.md": (
            HEADER
            + MODEL_HEAD
            + _spec(model["spec"], MODEL, {"deletionPolicy"})
            + "\n## The status\n\n"
            + _status(model["status"], MODEL_STATUS)
        ),
    }


def paths(schema: Schema, before: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """(dotted path, its schema, whether it must be given), a parent before its parts."""
    required = schema.get("required", [])
    for name, item in schema.get("properties", {}).items():
        path = f"{before}{name}"
        yield path, item, name in required
        yield from paths(_inner(item), f"{path}{_joint(item)}")


def _inner(item: Schema) -> Schema:
    """What has the properties: the object, or a list's items."""
    found: Schema = item["items"] if item.get("type") == "array" else item
    return found


def _joint(item: Schema) -> str:
    return "[]." if item.get("type") == "array" else "."


def status_paths() -> set[str]:
    """Every field of FineTune's status."""
    return {path for path, _, _ in paths(_root(finetune_crd())["status"])}


def _root(crd: Schema) -> Schema:
    (version,) = crd["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def _spec(schema: Schema, known: dict[str, str], mutable: AbstractSet[str]) -> str:
    def row(path: str, item: Schema, is_required: bool) -> list[str]:
        words = sentence(item.get("description") or known.get(path, ""))
        marks = " **required**" * is_required + " **may change**" * (path in mutable)
        return [_type(item), _default(item), f"{words}{marks}"]

    return _sections(schema, ["type and bounds", "default", "what"], row)


def _status(schema: Schema, words: dict[str, str]) -> str:
    def row(path: str, item: Schema, _: bool) -> list[str]:
        return [_type(item), words.get(path, "")]

    return _sections(schema, ["type", "what"], row)


def _sections(schema: Schema, head: list[str], row: Row) -> str:
    """A table of the fields, and one for each field that has parts, under its name."""
    groups: dict[str, list[list[str]]] = {}
    for path, item, is_required in paths(schema):
        parent, _, name = path.rpartition(".")
        groups.setdefault(parent, []).append([code(name), *row(path, item, is_required)])
    return "\n".join(
        (f"## {parent}\n\n" if parent else "") + table(["field", *head], rows)
        for parent, rows in groups.items()
    )


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
