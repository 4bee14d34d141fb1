"""A spec against the API's own model, before anything is sent: field, value, rule.

What takes the API server to know (rules across fields, names, rights) it says in a dry run.
"""

from __future__ import annotations

import difflib
import reprlib
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.wire import JsonObject
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE
from finetune_data.read.findings import shown


def check(spec: JsonObject) -> None:
    """Raise CommandError that names every wrong field."""
    problems = [*_unknown(spec, FineTuneSpec, "spec")]
    try:
        FineTuneSpec.model_validate(spec, strict=True)
    except ValidationError as error:
        problems += [_words(dict(found)) for found in error.errors(include_url=False)]
    if problems:
        raise CommandError(
            "; ".join(problems), "docs/reference/finetune.md has all fields", code=EXIT_USAGE
        )


def _unknown(value: Any, model: type[BaseModel], path: str) -> Iterator[str]:
    """Keys that no field has, with the field that was meant."""
    if not isinstance(value, dict):
        return
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, inner in value.items():
        if key not in fields:
            close = difflib.get_close_matches(_camel(str(key)), fields, 1, 0.6)
            meant = f", did you mean {close[0]}?" if close else ""
            yield f"{path}.{_plain(key)} is no field{meant}"
        elif (nested := _nested(fields[key].annotation)) is not None:
            items = inner if isinstance(inner, list) else [inner]
            for index, item in enumerate(items):
                place = f"{path}.{key}" + (f"[{index}]" if isinstance(inner, list) else "")
                yield from _unknown(item, nested, place)


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model`, `Model | None` or `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {typing.Union, types.UnionType, list, typing.Annotated}:
        inner = (_nested(part) for part in typing.get_args(annotation))
        return next((found for found in inner if found is not None), None)
    return None


def _words(found: dict[str, Any]) -> str:
    """`spec.hyperparameters.nEpochs: 0 must be greater than or equal to 1`."""
    field = "spec" + "".join(
        f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in found["loc"]
    )
    if found["type"] == "missing":
        return f"{field} is required"
    rule = str(found["msg"]).replace("Input should be", "must be").replace("should", "must", 1)
    if found["type"] == "string_pattern_mismatch":
        is_address = "s3://" in found["ctx"]["pattern"]
        rule = "must be like s3://bucket/key" if is_address else f"must {rule.split('must ')[-1]}"
    return f"{field}: {_plain(_shortened.repr(found['input']))} {rule[0].lower()}{rule[1:]}"


def _plain(value: object) -> str:
    """A stranger's key or value: short, printable, without added quotes."""
    return shown(str(value), 60)[1:-1]


def _camel(text: str) -> str:
    first, *others = text.replace("-", "_").split("_")
    return first + "".join(part.capitalize() for part in others)


_shortened = reprlib.Repr()
_shortened.maxstring = 50
