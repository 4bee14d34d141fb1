"""The fields of a Model with which its owner asks the operator to serve it."""

from pydantic import Field

from finetune_api.finetune_spec import DNS_LABEL, Quantity, Spec


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
