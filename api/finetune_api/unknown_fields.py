"""Fields of a JSON value that a model does not have.

Models that are read from the API server ignore unknown fields, because a later version may have
written them. What a user or an administrator writes must not have any.
"""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class UnknownField:
    """A key of a JSON object that its model does not have."""

    path: str  # of the object, such as `scheduling.tolerations[1]`; empty at the top
    key: str  # untrusted
    known: tuple[str, ...]  # the keys that the object may have


def find_unknown_fields(
    value: Any, model: type[BaseModel], path: str = ""
) -> Iterator[UnknownField]:
    """The unknown keys of the value, at any depth. What has another form than the model has none.

    path: of the value.
    """
    if not isinstance(value, dict):
        return
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, inner in value.items():
        if key not in fields:
            yield UnknownField(path, str(key), tuple(fields))
        elif (nested := nested_model(fields[key].annotation)) is not None:
            below = f"{path}.{key}" if path else key
            if isinstance(inner, list):
                for index, item in enumerate(inner):
                    yield from find_unknown_fields(item, nested, f"{below}[{index}]")
            else:
                yield from find_unknown_fields(inner, nested, below)


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model`, `Model | None`, or `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {typing.Union, types.UnionType, list, typing.Annotated}:
        inner = (nested_model(part) for part in typing.get_args(annotation))
        return next((found for found in inner if found is not None), None)
    return None
