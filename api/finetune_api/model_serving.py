"""Serving of a fine-tuned model by the operator: the fields of a Model and the names of objects."""

from typing import Literal

from pydantic import Field

from finetune_api.finetune_spec import DNS_LABEL, Quantity, Spec
from finetune_api.finetune_status import Timestamp
from finetune_api.wire import Stored

NAME_CHARACTERS = 35  # of the Model's name; 63 minus the UID and the rest
PORT_COMPLETIONS = 8000  # of the pods and of their Service
ServingState = Literal["loading", "ready", "asleep", "failed"]


class ServeResources(Spec):
    """Resources of each pod that serves the model. They replace those of the runtime."""

    gpus: int | None = Field(
        None, ge=0, le=64, description="Number of GPUs. Default: that of the runtime."
    )
    cpu: Quantity | None = Field(
        None, description="CPU request and limit. Default: those of the runtime."
    )
    memory: Quantity | None = Field(
        None, description="Memory request and limit. Default: those of the runtime."
    )


class Serve(Spec):
    """Serve the model: the operator creates a Deployment and a Service from a runtime."""

    runtime: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        pattern=DNS_LABEL,
        description="Name of the runtime (chart value serving.runtimes). Default: the first one.",
    )
    replicas: int = Field(1, ge=1, le=64, description="Number of pods while the model is awake.")
    min_replicas: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Number of pods that remain when no request came for idleSeconds. 0: the model "
        "sleeps, and the next request wakes it. Default: replicas, so that it never sleeps.",
    )
    idle_seconds: int = Field(
        900,
        ge=60,
        le=604800,
        description="Seconds without a request through the gateway after which only minReplicas "
        "pods remain.",
    )
    resources: ServeResources | None = None


class ServingStatus(Stored):
    """Observed state of the pods that serve the model. Absent without spec.serve."""

    state: ServingState = Field(
        description="State: loading until a pod has completed a prompt, ready, asleep when no pod "
        "is wanted, or failed when the pods do not start."
    )
    reason: str = Field(max_length=1024, description="Cause of the state in one word.")
    message: str = Field(max_length=4096, description="Cause of the state in one sentence.")
    since: Timestamp = Field(description="Time of the last change of state (RFC 3339, UTC).")
    runtime: str | None = Field(
        None, max_length=63, description="Name of the runtime. Absent if it is unknown."
    )
    engine: str | None = Field(
        None, max_length=63, description="Server in the pods: finetune or vllm."
    )
    service: str | None = Field(
        None,
        max_length=63,
        description="Name of the Service, which implements OpenAI's API over HTTP below /v1.",
    )
    replicas: int = Field(0, ge=0, description="Number of pods that are wanted.")
    ready_replicas: int = Field(0, ge=0, description="Number of pods that answer requests.")
    log: list[str] | None = Field(
        None,
        max_length=20,
        description="Last lines of the log of a pod that ended with an error. Absent while a pod "
        "answers requests.",
    )


def serving_name(name: str, uid: str) -> str:
    """The name of a Model's Deployment, Service, and Lease.

    name, uid: of the Model. Names of Services have no dots.
    """
    return f"mdl-{name.replace('.', '-')[:NAME_CHARACTERS].rstrip('-')}-{uid[:8]}-serve"
