"""The FineTune custom resource. `finetune_api.crd` generates the CRD from its models."""

from pydantic import Field

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.wire import JsonObject, Stored


class Metadata(Stored):
    """The fields of ObjectMeta that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] = Field(default_factory=list)
    annotations: dict[str, str] = Field(default_factory=dict)


class FineTune(Stored):
    """The custom resource, as read from the API server."""

    metadata: Metadata
    spec: FineTuneSpec
    status: FineTuneStatus = FineTuneStatus()

    @classmethod
    def parse(cls, obj: JsonObject) -> "FineTune":
        return cls.model_validate(
            {key: obj[key] for key in ("metadata", "spec", "status") if key in obj}
        )
