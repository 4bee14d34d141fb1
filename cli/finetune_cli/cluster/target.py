"""Which cluster and namespace a command addresses."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterTarget:
    """Which cluster and namespace; None: what the kubeconfig says."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    @property
    def flags(self) -> str:
        """To be repeated in a command that is proposed; with a leading space, or empty."""
        named = (("--kubeconfig", self.kubeconfig), ("--context", self.context))
        words = [f" {flag} {shlex.quote(value)}" for flag, value in named if value]
        words += [f" -n {shlex.quote(self.namespace)}"] if self.namespace else []
        return "".join(words)

    def behind(self, outer: object) -> ClusterTarget:
        """What was given here, else what stood before the command's name."""
        if not isinstance(outer, ClusterTarget):
            return self
        return ClusterTarget(
            self.kubeconfig or outer.kubeconfig,
            self.context or outer.context,
            self.namespace or outer.namespace,
        )
