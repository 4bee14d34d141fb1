"""What `finetune models serve` changes in a Model, and when the status shows its effect. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from finetune_api.model import Model
from finetune_api.serving import Serve, ServeResources, ServingState
from finetune_cli.terminal.format import duration

PATIENCE_SECONDS = 20.0  # a healthy operator needs one second, and its pods a few more to end


@dataclass(frozen=True)
class ServingChange:
    """spec.serve before and after the patch. was_reported: whether it had a status before."""

    before: Serve | None
    after: Serve
    was_reported: bool

    @classmethod
    def of(cls, found: Model, patched: Model) -> Self:
        """found: the Model before the patch. patched: after it, with spec.serve."""
        assert patched.spec.serve is not None
        return cls(found.spec.serve, patched.spec.serve, found.status.serving is not None)

    @property
    def replaces_pods(self) -> bool:
        before, after = self.before, self.after
        return before is None or (before.runtime, before.resources) != (
            after.runtime,
            after.resources,
        )

    def is_visible(self, state: ServingState, seconds: float) -> bool:
        """Whether a state can be trusted to be one after the change.

        seconds: since the change. The status does not have the generation that it describes, so for
        a while it may be about the former pods.
        """
        if not self.was_reported or self.before == self.after:
            return True
        if state == "loading" or (state == "ready" and not self.replaces_pods):
            return True
        return seconds >= PATIENCE_SECONDS

    def describe(self, model_id: str) -> str:
        """What the patch did, in one sentence."""
        if self.before == self.after:
            start = f"{model_id} is already served as requested"
        elif self.before is not None:
            start = f"Changed the server of {model_id}"
        else:
            start = f"Serving {model_id}"
        return f"{start}: {describe_serve(self.after)}."


def describe_serve(serve: Serve) -> str:
    """`runtime 'small', 2 pods, each with 1 GPU, asleep after 15 min without requests`."""
    runtime = f"runtime {serve.runtime!r}" if serve.runtime else "the default runtime"
    pods, amounts = count_pods(serve.replicas), _amounts(serve.resources)
    if amounts:
        pods += f"{', each' if serve.replicas > 1 else ''} with {amounts}"
    return ", ".join(filter(None, (runtime, pods, sleep_text(serve))))


def _amounts(resources: ServeResources | None) -> str:
    """`2 GPUs, CPU 500m, memory 32Gi`: what replaces the resources of the runtime."""
    if resources is None:
        return ""
    gpus = resources.gpus
    parts = [
        "" if gpus is None else f"{gpus or 'no'} GPU{'' if gpus in {0, 1} else 's'}",
        f"CPU {resources.cpu}" if resources.cpu else "",
        f"memory {resources.memory}" if resources.memory else "",
    ]
    return ", ".join(filter(None, parts))


def sleep_text(serve: Serve) -> str:
    """`asleep after 15 min without requests`; empty if the number of pods never changes."""
    least = serve.replicas if serve.min_replicas is None else serve.min_replicas
    if least >= serve.replicas:
        return ""
    remaining = f"down to {count_pods(least)}" if least else "asleep"
    return f"{remaining} after {duration(serve.idle_seconds)} without requests"


def count_pods(count: int) -> str:
    return f"{count} pod{'' if count == 1 else 's'}"
