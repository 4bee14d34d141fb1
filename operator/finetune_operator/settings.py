"""The settings of the operator: a YAML file that the chart writes, parsed once and frozen."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from finetune_api import names
from finetune_api.catalog import CatalogModel
from finetune_api.finetune_spec import Quantity
from finetune_api.hyperparameters import HyperparameterRules
from finetune_api.limits import DataLimits
from finetune_api.uris import EndpointPattern
from finetune_api.wire import Wire
from finetune_operator.pod_fields import Annotations, Environment, Labels
from finetune_operator.runtimes import Runtime, ServingRuntimes

MEMORY: Literal["memory"] = "memory"
EPHEMERAL_STORAGE: Literal["ephemeral-storage"] = "ephemeral-storage"


def _is_foreign(key: str) -> str:
    if key.startswith(names.ENV_PREFIX):
        raise ValueError(f"{key} is set by the operator itself")
    return key


# The name of an environment variable that a Secret may set.
SecretKey = Annotated[
    str, Field(max_length=253, pattern="^[A-Za-z_][A-Za-z0-9_]*$"), AfterValidator(_is_foreign)
]
PROXY_URL = r"^(https?://[^\s/]+/?)?$"
ProxyException = Annotated[str, Field(min_length=1, pattern=r"^[^\s,]+$")]
EstimatedRequest = Literal["memory", "ephemeral-storage"]


def _parsed(pattern: str) -> str:
    EndpointPattern.parse(pattern)
    return pattern


class PrepareResources(Wire):
    """Requests and limits of the prepare pod. It streams the data, so it needs little."""

    cpu: str = "1"
    memory: str = "2Gi"
    # None: of GPU trainings, what the files may need is requested; see build/scratch_space.py.
    ephemeral_storage: Quantity | None = None

    @property
    def amounts(self) -> dict[str, str]:
        """The amounts by the names of Kubernetes."""
        found = {"cpu": self.cpu, MEMORY: self.memory}
        if self.ephemeral_storage is not None:
            found[EPHEMERAL_STORAGE] = self.ephemeral_storage
        return found


class BaseCheck(Wire):
    """The container of the prepare pod that checks the base model, in the trainer image."""

    enabled: bool = True  # otherwise only the training pods check it, once they have their GPUs
    # A pod requests the larger amount of its containers that run one after the other.
    resources: PrepareResources = PrepareResources()


class Certificates(Wire):
    """A file of trusted authorities in the namespace of each FineTune: one of two sources."""

    config_map: str = ""
    secret: str = ""  # a name, not a secret
    key: str = Field("ca.crt", min_length=1)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.config_map) == bool(self.secret):
            raise ValueError("set either configMap or secret")
        return self


class Proxy(Wire):
    """The HTTP proxy of the pods, for the store and the hub."""

    https: str = Field("", pattern=PROXY_URL)
    http: str = Field("", pattern=PROXY_URL)
    # Names, domains, addresses, and networks that are reached directly, besides those of the
    # cluster's own domain.
    exceptions: list[ProxyException] = Field(default_factory=list)


class PodNetwork(Wire):
    """Further rules for the NetworkPolicy of each FineTune, in the format of a NetworkPolicy."""

    progress_from: list[dict[str, Any]] = Field(default_factory=list)  # peers that read progress
    egress: list[dict[str, Any]] = Field(default_factory=list)  # rules; empty: no restriction


KeyPrefix = Annotated[str, Field(min_length=1, max_length=317, pattern=r"^[-A-Za-z0-9_./]+$")]


class PodParts(Wire):
    """What all pods of the product get, in addition to what a runtime gives training pods."""

    env: Environment = Field(default_factory=dict)
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)
    # Prefixes of the keys that a FineTune may add in spec.podLabels and spec.podAnnotations. None
    # by default: labels and annotations can switch off policies and security features.
    allowed_label_prefixes: list[KeyPrefix] = Field(default_factory=list)
    allowed_annotation_prefixes: list[KeyPrefix] = Field(default_factory=list)


class Settings(Wire):
    """The decisions of an administrator, with the reasons for the defaults."""

    namespace: str = ""  # empty: all namespaces
    organization: str = ""  # empty: the FineTune's namespace
    output: str = ""  # empty: spec.output is required
    secret_name: str = "finetune-s3"  # a name, not a secret  # noqa: S105
    # Keys of the Secret that pods get besides those of S3 and the hub. Ours are never among them.
    secret_keys: list[SecretKey] = Field(default_factory=list)
    # Keys without which no pod starts that uses a Secret which a user names. With one at least, the
    # kubelet explains a missing Secret, and its pods start once it exists.
    required_secret_keys: list[SecretKey] = Field(default_factory=lambda: ["AWS_ACCESS_KEY_ID"])
    # Stores and hubs that pods may connect to; empty: all but addresses of the node itself.
    allowed_endpoints: list[Annotated[str, AfterValidator(_parsed)]] = Field(default_factory=list)
    service_account_name: str = "finetune"
    prepare_image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    models: list[CatalogModel]
    runtimes: list[Runtime] = Field(min_length=1)
    hyperparameters: HyperparameterRules = HyperparameterRules()
    data: DataLimits = DataLimits()
    prepare_resources: PrepareResources = PrepareResources()
    base_check: BaseCheck = BaseCheck()
    # Seconds after which a prepare, lookup, or deletion Job ends: none of them waits for a GPU. Ten
    # files of 150 MiB take minutes. 0: no deadline.
    cpu_job_deadline_seconds: int = Field(14_400, ge=0, le=2**31 - 1)
    # What training pods request from the estimate if the FineTune does not set it. With a queue it
    # is nothing, because Kueue admits no Job that requests a resource without a quota.
    estimated_requests: tuple[EstimatedRequest, ...] = (MEMORY, EPHEMERAL_STORAGE)
    queued_requests: tuple[EstimatedRequest, ...] = ()
    # MB/s at which a pod copies, hashes, and uploads its part of a checkpoint after SIGTERM. The
    # default is low for a data center's S3: a longer grace period costs nothing once a pod exits.
    checkpoint_bandwidth: float = Field(250, gt=0)
    # Whether Kueue's Workloads are read, which show why a Job is not admitted. Needs permissions.
    # Otherwise spec.queueName still works.
    kueue_enabled: bool = False
    # Version of kueue.x-k8s.io that is used if the cluster serves it. Empty: the newest one of
    # those that the cluster serves. An older chart sets only this, and only if Workloads are read.
    kueue_version: str = Field("", pattern="^(v[0-9]+((alpha|beta)[0-9]+)?)?$")
    # Whether the Jobs on CPUs wait in the queue of their FineTune, too.
    kueue_queue_prepare: bool = False
    metrics_token_review: bool = False  # restricts /metrics to clients that may GET it
    pods: PodParts = PodParts()
    # Whether the cluster chooses the user and group IDs of pods, as OpenShift does.
    cluster_assigns_user_ids: bool = False
    certificates: Certificates | None = None  # None: the public authorities only
    proxy: Proxy = Proxy()
    # Where the bucket is in requests to S3, if the Secret does not say it. Empty: in the path for
    # an own endpoint, so that such a store needs no DNS names for its buckets.
    addressing_style: Literal["", "auto", "path", "virtual"] = ""
    pod_network: PodNetwork | None = None  # None: no NetworkPolicy
    # Whether Models are watched, as deletionPolicy Delete requires. Needs further permissions.
    deletes_models: bool = False
    serving: ServingRuntimes | None = None  # None: spec.serve of Models is ignored
    # One progress write in ten seconds is enough for `kubectl get -w` and cheap for etcd.
    progress_seconds: float = 10
    poll_seconds: float = 5
    # The wait after a crash, doubled for each consecutive one up to 30 times the value.
    restart_seconds: float = Field(10, ge=0)
    # How long an attempt may hold nodes and lack others while another one waits for its nodes. A
    # scheduler places what fits within seconds; a cluster autoscaler needs minutes, and an attempt
    # that is released too early loses nothing but its place. 0: nothing is released.
    # Whether PodGroups of scheduling.k8s.io are created if they are served. Needs permissions.
    pod_groups: bool = False
    gang_seconds: float = Field(60, ge=0)
    # What spec.pendingDeadlineSeconds is without a value and a queue. A week outlasts a weekend and
    # a long training of others; a FineTune that waits longer names nodes that do not exist, or is
    # forgotten. 0: no deadline.
    pending_deadline_seconds: int = Field(604_800, ge=0)
    # The API server may carry out a request that takes longer: nothing relies on its absence.
    request_timeout_seconds: float = Field(30, gt=0)
    # Every FineTune is reconciled at least this often, in case a trigger was lost.
    sweep_seconds: float = Field(300, gt=0)

    @property
    def reads_kueue(self) -> bool:
        """Whether the operator may read Kueue's Workloads and queues."""
        return self.kueue_enabled or bool(self.kueue_version)

    def model(self, name: str) -> CatalogModel | None:
        return next((model for model in self.models if model.name == name), None)

    def runtime(self, name: str | None) -> Runtime | None:
        """The runtime of that name; the first one if there is no name."""
        if name is None:
            return self.runtimes[0]
        return next((runtime for runtime in self.runtimes if runtime.name == name), None)
