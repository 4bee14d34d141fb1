"""The key of a reconcile: a FineTune or a Model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """Identifies a FineTune or a Model."""

    namespace: str
    name: str
    kind: str = "FineTune"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
