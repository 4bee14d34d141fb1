"""The Model: a fine-tuned model that outlives the FineTune which made it."""

from typing import Any, Literal

from pydantic import Field

from finetune_api.finetune import Metadata
from finetune_api.finetune_spec import DNS_SUBDOMAIN, S3Address, Spec
from finetune_api.finetune_status import Condition
from finetune_api.wire import Stored


class ModelSource(Spec):
    """Which FineTune made it."""

    name: str = Field(max_length=253)
    uid: str = Field(max_length=64)


class ValidationMetrics(Spec):
    """On the whole validation file."""

    validation_loss: float | None = None
    validation_sequence_accuracy: float | None = None
    validation_token_accuracy: float | None = None


class ModelMetrics(ValidationMetrics):
    """At the end of the training."""

    training_loss: float | None = None


class ModelSpec(Spec):
    """What is known of a fine-tuned model."""

    id: str = Field(
        min_length=1,
        max_length=256,
        description="The name to use: {base}:ft-{org}:{suffix}-{time}.",
    )
    uri: S3Address = Field(description="Hugging Face layout, safetensors.")
    base: str = Field(max_length=253, description="The catalog model at the start of the chain.")
    parent: str | None = Field(None, max_length=256, description="What this one continued from.")
    manifest_sha256: str | None = Field(None, max_length=64)
    pretraining_learning_rate: float = Field(ge=0, le=1)
    context_length: int = Field(ge=1, le=10485760)
    training_examples: int | None = Field(None, ge=0)
    trained_tokens: int | None = Field(None, ge=0)
    fine_tune: ModelSource | None = None
    metrics: ModelMetrics | None = None
    metrics_before: ValidationMetrics | None = Field(
        None, description="What the model that it continued from had on the same validation file."
    )
    secret_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        pattern=DNS_SUBDOMAIN,
        description="The Secret with the S3 credentials of its files; default: the chart's.",
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        "Retain", description="Whether deleting this Model deletes its files."
    )


class ModelStatus(Stored):
    """Empty but while its files are deleted."""

    conditions: list[Condition] = Field(default_factory=list, max_length=16)


class Model(Stored):
    """The custom resource, as read from the API server."""

    metadata: Metadata
    spec: ModelSpec
    status: ModelStatus = ModelStatus()

    @classmethod
    def parse(cls, obj: dict[str, Any]) -> "Model":
        return cls.model_validate(
            {key: obj[key] for key in ("metadata", "spec", "status") if key in obj}
        )
