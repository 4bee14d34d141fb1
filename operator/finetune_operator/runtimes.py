"""Runtimes: what an administrator allows the training pods of a cluster to be."""

from typing import Literal, Self

from pydantic import Field, model_validator

from finetune_api.finetune_spec import DNS_LABEL, DNS_SUBDOMAIN, Quantity
from finetune_api.wire import Wire
from finetune_operator.placement import Affinity, TopologySpreadConstraint
from finetune_operator.pod_fields import (
    Amounts,
    Annotations,
    ContainerSecurity,
    Environment,
    GroupLabels,
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


class Runtime(Wire):
    """A trainer image, its accelerator, and its pods. A FineTune refers to it by name.

    Only an administrator sets these fields: a user who could set annotations, capabilities, or a
    RuntimeClass could leave the restrictions of the namespace.
    """

    name: str = Field(pattern=DNS_LABEL)
    trainer_image: str
    accelerator: str = Field(pattern="^(nvidia|cpu)$")
    gpu_memory_gib: float | None = Field(None, alias="gpuMemoryGiB", gt=0)
    env: Environment = Field(default_factory=dict)
    # Class of the container runtime, where that of GPUs is not the default, as on k3s and Talos.
    runtime_class_name: str | None = Field(None, pattern=DNS_SUBDOMAIN)
    # Another scheduler than the cluster's default one, such as Volcano's.
    scheduler_name: str | None = Field(None, max_length=253, pattern=DNS_SUBDOMAIN)
    affinity: Affinity | None = None
    topology_spread_constraints: list[TopologySpreadConstraint] = Field(default_factory=list)
    # Requests and limits of each training pod that the spec does not set: cpu, memory,
    # ephemeral-storage, and further ones, such as RDMA devices, or huge pages for EFA.
    resources: Amounts = Field(default_factory=dict)
    resource_claims: list[ResourceClaim] = Field(default_factory=list)  # devices through DRA
    volumes: list[Volume] = Field(default_factory=list)
    volume_mounts: list[VolumeMount] = Field(default_factory=list)
    pod_annotations: Annotations = Field(default_factory=dict)
    pod_labels: GroupLabels = Field(default_factory=dict)
    # Replaces fields of the training container's securityContext, which satisfies `restricted`.
    security_context: ContainerSecurity = Field(default_factory=dict)
    model_cache: ModelCache | None = None  # None: base models are in the pod's own volume

    def of_group(self, group: str, pods: int) -> Self:
        """The runtime for a group of pods, which other schedulers place together or not at all."""
        return self.replace(
            pod_labels=fill_group(self.pod_labels, group, pods),
            pod_annotations=fill_group(self.pod_annotations, group, pods),
        )

    @model_validator(mode="after")
    def _has_distinct_names(self) -> Self:
        check_mounts(self.volumes, self.volume_mounts)
        check_claims(self.resource_claims)
        return self
