"""The base of everything that crosses a process border: camelCase outside, snake_case inside."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

JsonObject = dict[str, Any]  # as `json` reads an object, and as Kubernetes' API sends one


class Wire(BaseModel):
    """A value that is written as JSON: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    def to_json(self) -> str:
        """Compact JSON without the fields that hold nothing."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and lists, as the Kubernetes API takes it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)


class Stored(Wire):
    """A value that an older or a newer version may have written: an unknown key is ignored."""

    model_config = ConfigDict(extra="ignore")
