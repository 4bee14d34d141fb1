"""The key of a reconcile: a FineTune or a Model."""

from dataclasses import dataclass
from typing import Self

from finetune_api.wire import JsonObject


@dataclass(frozen=True)
class Key:
    """Identifies a FineTune or a Model."""

    namespace: str
    name: str
    kind: str = "FineTune"

    @classmethod
    def of(cls, raw: JsonObject) -> Self:
        """The key of a FineTune as the API server returns it."""
        return cls(raw["metadata"]["namespace"], raw["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
