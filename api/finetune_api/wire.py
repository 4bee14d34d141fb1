"""The base classes of values that processes exchange: camelCase in JSON, snake_case here."""

import math
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel

JsonObject = dict[str, Any]  # a JSON object, such as a Kubernetes object, after parsing
INT64 = range(-(2**63), 2**63)  # the integers that the Kubernetes API can store

_json: TypeAdapter[Any] = TypeAdapter(Any)


class Wire(BaseModel):
    """A value with a JSON form. It is immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    def to_json(self) -> str:
        """Compact JSON without the fields that are None."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def to_dict(self) -> JsonObject:
        """The same as plain dicts and lists, as the Kubernetes API expects it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)


class Stored(Wire):
    """A value that another version may have written. An unknown key is ignored."""

    model_config = ConfigDict(extra="ignore")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of an untrusted process into values that can be written as JSON again.

    A number without a value, such as NaN or 1e400, becomes None. Raise ValueError for an integer
    beyond 64 bits, for a lone surrogate, and for values that are nested hundreds of levels deep.
    """
    return _without_excess(_json.validate_json(text))


def _without_excess(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_excess(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_excess(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value not in INT64:
        raise ValueError("an integer has more than 64 bits")
    return value
