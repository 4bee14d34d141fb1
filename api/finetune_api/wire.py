"""The base classes of values that processes exchange: camelCase in JSON, snake_case here."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

JsonObject = dict[str, Any]  # a JSON object, such as a Kubernetes object, after parsing


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
