"""The cluster and the namespace that a command addresses."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterTarget:
    """Kubeconfig file, context, and namespace. None: the value from the kubeconfig applies."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    @property
    def flags(self) -> str:
        """The flags to repeat in a suggested command, with a leading space, or an empty string."""
        named = (("--kubeconfig", self.kubeconfig), ("--context", self.context))
        parts = [f" {flag} {shlex.quote(value)}" for flag, value in named if value]
        parts += [f" -n {shlex.quote(self.namespace)}"] if self.namespace else []
        return "".join(parts)

    def with_defaults(self, outer: object) -> ClusterTarget:
        """This target, completed with the flags that were given before the command's name."""
        if not isinstance(outer, ClusterTarget):
            return self
        return ClusterTarget(
            self.kubeconfig or outer.kubeconfig,
            self.context or outer.context,
            self.namespace or outer.namespace,
        )
