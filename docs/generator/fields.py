"""The reference pages of the custom resources, generated from the CRDs' own schema.

The descriptions of the fields are in the pydantic models of `api/finetune_api`.
"""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

from docs.generator.markdown import HEADER, code, sentence, table
from finetune_api.crd import Schema, finetune_crd, model_crd
from finetune_api.crd.rules import MUTABLE_FIELDS, MUTABLE_MODEL_FIELDS, NEW_RULES
from finetune_api.hyperparameters import DEFAULT_MARK

Row = Callable[[str, Schema, bool], list[str]]

FINETUNE = """# FineTune: spec

`finetune.dev/v1alpha1`, kind `FineTune`, short name `ft`, namespaced. Only `trainingFile` or
`trainingFiles` is required. A name has at most 63 characters. `kubectl explain finetune.spec`
shows the same descriptions.

You can change a field that is marked **may change** at any time. The API server rejects changes of
all other fields; create a new FineTune instead.

"""
FINETUNE_STATUS = """# FineTune: status

The operator writes the status. It remains available after the pods are deleted. See
[Reasons](reasons.md), [Events](events.md), and [Exit codes](exit-codes.md) for their values, and
[States and conditions](../gitops.md#when-is-it-done) for the condition to wait for.
`kubectl explain finetune.status` shows the same descriptions.

"""
MODEL_HEAD = """# Model

`finetune.dev/v1alpha1`, kind `Model`, namespaced. The operator creates a Model for each fine-tuned
model. It has no owner, so it remains when its FineTune is deleted.

"""


def pages() -> dict[str, str]:
    """Map each page to its text."""
    finetune, model = _root(finetune_crd()), _root(model_crd())
    return {
        "reference/finetune.md": HEADER
        + FINETUNE
        + _spec(finetune["spec"], MUTABLE_FIELDS)
        + _rules(),
        "reference/status.md": HEADER + FINETUNE_STATUS + _status(finetune["status"]),
        "reference/model.md": (
            HEADER
            + MODEL_HEAD
            + _spec(model["spec"], MUTABLE_MODEL_FIELDS)
            + "\n## The status\n\n"
            + _status(model["status"])
        ),
    }


def paths(schema: Schema, before: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Yield (dotted path, schema, whether the field is required), a parent before its parts."""
    required = schema.get("required", [])
    for name, item in schema.get("properties", {}).items():
        path = f"{before}{name}"
        yield path, item, name in required
        yield from paths(_inner(item), f"{path}{_joint(item)}")


def _inner(item: Schema) -> Schema:
    """The schema that has the properties: that of the object, or of a list's items."""
    found: Schema = item["items"] if item.get("type") == "array" else item
    return found


def _joint(item: Schema) -> str:
    return "[]." if item.get("type") == "array" else "."


def _root(crd: Schema) -> Schema:
    (version,) = crd["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def _spec(schema: Schema, mutable: AbstractSet[str]) -> str:
    def row(path: str, item: Schema, is_required: bool) -> list[str]:
        meaning, default = _described(item)
        marks = " **required**" * is_required + " **may change**" * (path in mutable)
        return [_type(item), default, f"{meaning}{marks}"]

    return _sections(schema, ["type and bounds", "default", "description"], row)


def _status(schema: Schema) -> str:
    def row(_path: str, item: Schema, _is_required: bool) -> list[str]:
        return [_type(item), sentence(item["description"])]

    return _sections(schema, ["type", "description"], row)


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


def _described(item: Schema) -> tuple[str, str]:
    """The meaning of a field, and its default: that of the schema, or of its last sentence."""
    meaning, _, described = item["description"].partition(DEFAULT_MARK)
    default = item.get("default", {})
    if default == {}:
        words = described.removesuffix(".")
        return sentence(meaning), sentence(words) if " " in words else code(words)
    return sentence(meaning), code(str(default).lower() if isinstance(default, bool) else default)


def _rules() -> str:
    rows = [[sentence(message)] for _, message in NEW_RULES]
    return (
        "\n## Rules across fields\n\nThe API server rejects a FineTune that breaks one of these "
        "rules.\n\n" + table(["rule"], rows)
    )
