"""The key of a reconcile: which FineTune or which Model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """Which FineTune, or which Model."""

    namespace: str
    name: str
    kind: str = "FineTune"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
