"""The key of a reconcile: a FineTune, a Model, or the server of a Model."""

from dataclasses import dataclass
from typing import Self

from finetune_api.wire import JsonObject

SERVING = "Serving"  # the server of a Model, which is reconciled independently of its deletion


@dataclass(frozen=True)
class Key:
    """Identifies a FineTune, or a Model with what is done for it."""

    namespace: str
    name: str
    kind: str = "FineTune"

    @classmethod
    def of(cls, raw: JsonObject) -> Self:
        """The key of a FineTune as the API server returns it."""
        return cls(raw["metadata"]["namespace"], raw["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
