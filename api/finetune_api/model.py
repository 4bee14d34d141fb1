"""The Model custom resource: a fine-tuned model. It outlives the FineTune that trained it."""

from typing import Literal

from pydantic import Field

from finetune_api.finetune import Metadata
from finetune_api.finetune_spec import DNS_LABEL, DNS_SUBDOMAIN, Spec
from finetune_api.finetune_status import Condition
from finetune_api.serving import Serve, ServingStatus
from finetune_api.uris import S3Address
from finetune_api.wire import JsonObject, Stored


class ModelSource(Spec):
    """The FineTune that trained the model."""

    name: str = Field(max_length=253, description="Name of the FineTune.")
    uid: str = Field(
        max_length=64, description="UID of the FineTune; its name may be in use again."
    )


class ValidationMetrics(Spec):
    """Metrics on the whole validation file. They are absent without a validation file."""

    validation_loss: float | None = Field(
        None, description="Loss on the validation file in nats per token."
    )
    validation_sequence_accuracy: float | None = Field(
        None,
        description="Fraction of validation completions whose tokens are all predicted correctly.",
    )
    validation_token_accuracy: float | None = Field(
        None, description="Fraction of validation completion tokens that are predicted correctly."
    )


class ModelMetrics(ValidationMetrics):
    """Metrics at the end of the training."""

    training_loss: float | None = Field(
        None, description="Mean training loss of the last epoch in nats per token."
    )


class Serving(Spec):
    """The server that runs the model and receives requests for its completions."""

    service: str = Field(
        min_length=1,
        max_length=63,
        pattern=DNS_LABEL,
        description="Name of a Service in this namespace that implements OpenAI's API over HTTP "
        "below /v1.",
    )
    port: int = Field(ge=1, le=65535, description="Port of the Service.")
    name: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Name under which the server knows the model. Default: the id of the model.",
    )


class ModelSpec(Spec):
    """A fine-tuned model: its name, its files, and its origin.

    The operator writes it when a FineTune succeeds.
    """

    id: str = Field(
        min_length=1,
        max_length=256,
        description="Name of the model, {base}:ft-{organization}:{suffix}-{time}. Set spec.model "
        "of a FineTune to it to continue training.",
    )
    uri: S3Address = Field(
        description="S3 prefix of the model's files, in the layout of Hugging Face with "
        "safetensors."
    )
    base: str = Field(
        max_length=253,
        description="Name of the catalog model from which the chain of fine-tunes started.",
    )
    parent: str | None = Field(
        None,
        max_length=256,
        description="Id of the fine-tuned model from which the training continued. Absent when it "
        "started from a catalog model.",
    )
    manifest_sha256: str | None = Field(
        None,
        max_length=64,
        description="SHA-256 of manifest.json below uri, which lists the digest of each file.",
    )
    pretraining_learning_rate: float = Field(
        ge=0,
        le=1,
        description="Peak learning rate of the catalog model's pre-training, which "
        "learningRateMultiplier multiplies.",
    )
    context_length: int = Field(
        ge=1, le=10485760, description="Context length of the model in tokens."
    )
    training_examples: int | None = Field(
        None, ge=0, description="Number of training examples in one epoch."
    )
    trained_tokens: int | None = Field(
        None, ge=0, description="Number of tokens trained on. Every epoch counts."
    )
    fine_tune: ModelSource | None = None
    metrics: ModelMetrics | None = None
    metrics_before: ValidationMetrics | None = Field(
        None,
        description="Metrics of the parent model on the same validation file. Absent without a "
        "parent or a validation file.",
    )
    secret_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        pattern=DNS_SUBDOMAIN,
        description="Name of the Secret with the S3 credentials for the model's files. Default: "
        "chart value secretName.",
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        "Retain",
        description="Treatment of the files when this Model is deleted: Retain keeps them, Delete "
        "deletes them, too, unless they are not proven to be its own or its namespace is deleted.",
    )
    serving: Serving | None = None
    serve: Serve | None = None


class ModelStatus(Stored):
    """Observed state of the Model. It is empty unless the Model is served or deleted."""

    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Condition FilesDeleted while the files of a Model with deletionPolicy Delete "
        "are deleted. Its reason and message explain a delay, or why the files remain.",
    )
    serving: ServingStatus | None = None


class Model(Stored):
    """The custom resource, as read from the API server."""

    metadata: Metadata
    spec: ModelSpec
    status: ModelStatus = ModelStatus()

    @classmethod
    def parse(cls, obj: JsonObject) -> "Model":
        return cls.model_validate(
            {key: obj[key] for key in ("metadata", "spec", "status") if key in obj}
        )
