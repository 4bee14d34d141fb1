"""The state of a served Model, as the operator reports it."""

from typing import Literal

from pydantic import Field

from finetune_api.finetune_status import Timestamp
from finetune_api.wire import Stored

ServingState = Literal["loading", "ready", "asleep", "failed"]


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
