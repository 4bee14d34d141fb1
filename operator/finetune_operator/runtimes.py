"""Runtimes: what an administrator allows the training and serving pods of a cluster to be."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune_api.finetune_spec import DNS_LABEL, DNS_SUBDOMAIN, Quantity, Toleration
from finetune_api.wire import Wire
from finetune_operator.placement import Affinity, TopologySpreadConstraint
from finetune_operator.pod_fields import (
    Amounts,
    Annotations,
    ContainerSecurity,
    Environment,
    GroupLabels,
    Labels,
    ResourceClaim,
    Volume,
    VolumeMount,
    check_claims,
    check_mounts,
    fill_group,
)


class ClaimSource(Wire):
    """A PersistentVolumeClaim in the namespace of the FineTune."""

    claim_name: str = Field(max_length=253, pattern=DNS_SUBDOMAIN)


class HostPathSource(Wire):
    """A folder of each node."""

    # Kubernetes refuses "..". A cache in the root folder of a node is a mistake.
    path: str = Field(max_length=1024, pattern=r"^(/\.?[^/.\x00-\x1f][^/\x00-\x1f]*)+/?$")


class EmptyDirSource(Wire):
    """A volume that lives as long as its pod."""

    size_limit: Quantity | None = None
    medium: Literal["", "Memory"] = ""


class ModelCache(Wire):
    """The volume in which training pods keep base models. Exactly one source is set."""

    persistent_volume_claim: ClaimSource | None = None
    host_path: HostPathSource | None = None
    empty_dir: EmptyDirSource | None = None
    # The least recently used models are removed when the models in the cache exceed this size.
    max_size: Quantity | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = {"persistentVolumeClaim", "hostPath", "emptyDir"} & self.to_dict().keys()
        if len(sources) != 1:
            raise ValueError("set exactly one of persistentVolumeClaim, hostPath, and emptyDir")
        if self.empty_dir is not None and self.max_size is not None:
            raise ValueError("an emptyDir has a sizeLimit instead of a maxSize")
        return self

    @property
    def is_shared(self) -> bool:
        """Whether the volume outlives the pod and does not count as its ephemeral storage."""
        return self.empty_dir is None


class PodRuntime(Wire):
    """What an administrator sets of pods that run on accelerators. Users choose it by name.

    Only an administrator sets these fields: a user who could set annotations, capabilities, or a
    RuntimeClass could leave the restrictions of the namespace.
    """

    name: str = Field(max_length=63, pattern=DNS_LABEL)
    env: Environment = Field(default_factory=dict)
    # Class of the container runtime, where that of GPUs is not the default, as on k3s and Talos.
    runtime_class_name: str | None = Field(None, pattern=DNS_SUBDOMAIN)
    # Another scheduler than the cluster's default one, such as Volcano's.
    scheduler_name: str | None = Field(None, max_length=253, pattern=DNS_SUBDOMAIN)
    affinity: Affinity | None = None
    topology_spread_constraints: list[TopologySpreadConstraint] = Field(default_factory=list)
    # Requests and limits of each pod that the spec does not set: cpu, memory,
    # ephemeral-storage, and further ones, such as RDMA devices, or huge pages for EFA.
    resources: Amounts = Field(default_factory=dict)
    resource_claims: list[ResourceClaim] = Field(default_factory=list)  # devices through DRA
    volumes: list[Volume] = Field(default_factory=list)
    volume_mounts: list[VolumeMount] = Field(default_factory=list)
    pod_annotations: Annotations = Field(default_factory=dict)
    pod_labels: Labels = Field(default_factory=dict)
    # Replaces fields of the main container's securityContext, which satisfies `restricted`.
    security_context: ContainerSecurity = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_distinct_names(self) -> Self:
        check_mounts(self.volumes, self.volume_mounts)
        check_claims(self.resource_claims)
        return self


class Runtime(PodRuntime):
    """A trainer image, its accelerator, and its pods. A FineTune refers to it by name."""

    trainer_image: str
    accelerator: str = Field(pattern="^(nvidia|cpu)$")
    gpu_memory_gib: float | None = Field(None, alias="gpuMemoryGiB", gt=0)
    pod_labels: GroupLabels = Field(default_factory=dict)
    model_cache: ModelCache | None = None  # None: base models are in the pod's own volume

    def of_group(self, group: str, pods: int) -> Self:
        """The runtime for a group of pods, which other schedulers place together or not at all."""
        return self.replace(
            pod_labels=fill_group(self.pod_labels, group, pods),
            pod_annotations=fill_group(self.pod_annotations, group, pods),
        )


Engine = Literal["finetune", "vllm"]
FETCH = {"cpu": "1", "memory": "1Gi"}


class ServingRuntime(PodRuntime):
    """A server for fine-tuned models and its pods. spec.serve of a Model refers to it by name."""

    engine: Engine = "finetune"
    image: str = Field(min_length=1, max_length=1024)
    args: list[Annotated[str, Field(max_length=4096)]] = Field(default_factory=list, max_length=64)
    gpu_resource: str = "nvidia.com/gpu"  # that spec.serve.resources.gpus requests
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    priority_class_name: str | None = Field(None, max_length=253, pattern=DNS_SUBDOMAIN)
    # For which a pod may load the model before it is started again.
    start_seconds: int = Field(1800, ge=10, le=86400)


class ServingRuntimes(Wire):
    """The runtimes of served models, and the container that downloads a model before the server."""

    runtimes: list[ServingRuntime] = Field(min_length=1)
    fetch_image: str = Field(min_length=1, max_length=1024)
    fetch_resources: Amounts = Field(default_factory=lambda: dict[str, str | int](FETCH))
    # How long a pod may fail to start before its Model is reported as failed.
    patience_seconds: float = Field(120, ge=0)

    def find(self, name: str | None) -> ServingRuntime | None:
        """The runtime of that name; the first one if there is no name."""
        if name is None:
            return self.runtimes[0]
        return next((runtime for runtime in self.runtimes if runtime.name == name), None)

    @model_validator(mode="after")
    def _has_distinct_runtimes(self) -> Self:
        names = [runtime.name for runtime in self.runtimes]
        if len(set(names)) < len(names):
            raise ValueError("serving.runtimes: a name is used twice")
        return self
