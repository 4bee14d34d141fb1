"""The operator's settings: one YAML file that the chart writes, parsed once and then frozen."""

from typing import Any

from pydantic import Field

from finetune_api.catalog import CatalogModel
from finetune_api.finetune_spec import DNS_LABEL
from finetune_api.hyperparameters import HyperparameterRules
from finetune_api.limits import DataLimits
from finetune_api.wire import Wire


class Runtime(Wire):
    """An image and the accelerator that it is for; the FineTune names it and nothing more."""

    name: str = Field(pattern=DNS_LABEL)
    trainer_image: str
    accelerator: str = Field(pattern="^(nvidia|cpu)$")
    gpu_memory_gib: float | None = Field(None, alias="gpuMemoryGiB", gt=0)
    env: dict[str, str] = Field(default_factory=dict)


class PrepareResources(Wire):
    """Requests and limits of the prepare pod: it streams, so little is enough."""

    cpu: str = "1"
    memory: str = "2Gi"


class PodNetwork(Wire):
    """Who else reaches the pods of a FineTune and whom they reach, in NetworkPolicy's words."""

    progress_from: list[dict[str, Any]] = Field(default_factory=list)  # peers, on that port only
    egress: list[dict[str, Any]] = Field(default_factory=list)  # rules; empty: anywhere


class Settings(Wire):
    """Everything that an admin decides, each with the reason of its default."""

    namespace: str = ""  # empty: all namespaces
    organization: str = ""  # empty: the FineTune's namespace
    output: str = ""  # empty: spec.output is required
    secret_name: str = "finetune-s3"  # a name, not a secret  # noqa: S105
    service_account_name: str = "finetune"
    prepare_image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    models: list[CatalogModel]
    runtimes: list[Runtime] = Field(min_length=1)
    hyperparameters: HyperparameterRules = HyperparameterRules()
    data: DataLimits = DataLimits()
    prepare_resources: PrepareResources = PrepareResources()
    # Version of kueue.x-k8s.io, such as v1beta1, whose Workloads say why a queue does not admit.
    # Empty: they are not read, which needs no rights; spec.queueName works all the same.
    kueue_version: str = Field("", pattern="^(v[0-9]+((alpha|beta)[0-9]+)?)?$")
    metrics_token_review: bool = False  # only who may GET /metrics reads the operator's metrics
    pod_network: PodNetwork | None = None  # a NetworkPolicy a FineTune
    # Whether Models are watched, so that deletionPolicy Delete works: needs further rights.
    deletes_models: bool = False
    # A progress write in ten seconds keeps `kubectl get -w` alive and etcd calm.
    progress_seconds: float = 10
    poll_seconds: float = 5
    # Before the attempt after a crash; doubled for each further one, up to 30 times as long.
    restart_seconds: float = Field(10, ge=0)
    # Every FineTune is looked at so often whatever happens: a trigger may have got lost.
    sweep_seconds: float = Field(300, gt=0)

    def model(self, name: str) -> CatalogModel | None:
        return next((model for model in self.models if model.name == name), None)

    def runtime(self, name: str | None) -> Runtime | None:
        """The named one; without a name the first of the list."""
        if name is None:
            return self.runtimes[0]
        return next((runtime for runtime in self.runtimes if runtime.name == name), None)
