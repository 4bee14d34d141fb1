"""Parts of a pod that an administrator sets: names, environment, volumes, and claims of devices.

The operator checks them when it starts, so that a typing error is not first found by the pods of a
FineTune. The rules are those of Kubernetes; names that the operator itself uses are refused.
"""

import posixpath
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from finetune_api import names
from finetune_api.finetune_spec import DNS_LABEL, DNS_SUBDOMAIN
from finetune_api.quantities import parse_quantity
from finetune_api.wire import Wire
from finetune_operator.keys import find_broken_key, find_broken_value

# The labels and annotations of the operator and of the Job controller. No setting replaces them.
OWN_KEYS = frozenset(
    {
        names.LABEL_FINETUNE,
        names.LABEL_UID,
        names.LABEL_COMPONENT,
        names.LABEL_ATTEMPT,
        names.LABEL_MANAGED_BY,
        names.ANNOTATION_MODEL,
        "controller-uid",
        "job-name",
    }
)
JOB_CONTROLLER = "batch.kubernetes.io/"
ANNOTATION_BYTES = 2**18  # of all keys and values together: the limit of the API server

WORK, SHM, MODEL_CACHE = "work", "shm", "model-cache"
OWN_VOLUMES = frozenset({WORK, SHM, MODEL_CACHE})
OWN_VOLUME_PREFIX = "finetune-"
CACHE_PATH = "/var/cache/finetune"
CERTIFICATES = "finetune-certificates"
CERTIFICATES_PATH = "/etc/finetune/certificates"
# At these paths and below them are the product's volumes, its code, and the interpreter.
OWN_PATHS = (
    *("/tmp", "/dev/shm", names.TERMINATION_MESSAGE_PATH),  # noqa: S108
    *(CACHE_PATH, CERTIFICATES_PATH, "/app", "/opt/venv"),
)

# The sources of a volume in core/v1, Kubernetes 1.36.
VOLUME_SOURCES = frozenset(
    {
        "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap",
        "csi", "downwardAPI", "emptyDir", "ephemeral", "fc", "flexVolume", "flocker",
        "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath", "image", "iscsi", "nfs",
        "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected",
        "quobyte", "rbd", "scaleIO", "secret", "storageos", "vsphereVolume",
    }
)  # fmt: skip
SECURITY_FIELDS = frozenset(
    {
        "allowPrivilegeEscalation", "appArmorProfile", "capabilities", "privileged",
        "procMount", "readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot", "runAsUser",
        "seLinuxOptions", "seccompProfile", "windowsOptions",
    }
)  # fmt: skip
NATIVE_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})

_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_RESOURCE = re.compile(r"(?:hugepages-[0-9A-Za-z]+|[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[\w.-]+)")


# In the labels and annotations of a runtime.
GROUP, GROUP_PODS = "{group}", "{pods}"
GROUP_CHARACTERS = 63  # of an attempt's name, which is a DNS label


def is_own_key(key: str) -> bool:
    """Whether the operator or the Job controller sets this label or annotation."""
    return key in OWN_KEYS or key.startswith(JOB_CONTROLLER)


def _check_keys(given: dict[str, str]) -> dict[str, str]:
    for key in given:
        if broken := find_broken_key(key):
            raise ValueError(broken)
        if is_own_key(key):
            raise ValueError(f"{key!r} is set by the operator or by Kubernetes: remove it")
    return given


def _check_labels(given: dict[str, str]) -> dict[str, str]:
    for key, value in _check_keys(given).items():
        if broken := find_broken_value(value):
            raise ValueError(f"label {key!r}: {broken}")
    return given


def fill_group(given: dict[str, str], group: str, pods: int) -> dict[str, str]:
    """Values in which {group} is the name of an attempt's group, and {pods} the number of pods."""
    values = {GROUP: group, GROUP_PODS: str(pods)}
    return {key: _replaced(value, values) for key, value in given.items()}


def _replaced(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _check_group_labels(given: dict[str, str]) -> dict[str, str]:
    _check_labels(fill_group(given, "g" * GROUP_CHARACTERS, 1))
    return given


def _check_annotations(given: dict[str, str]) -> dict[str, str]:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in _check_keys(given).items())
    if size > ANNOTATION_BYTES:
        raise ValueError(f"annotations have {size} bytes, and may have {ANNOTATION_BYTES}")
    return given


def _check_environment(given: dict[str, str]) -> dict[str, str]:
    for name in given:
        if _VARIABLE.fullmatch(name) is None or name in {".", ".."}:
            raise ValueError(
                f"{name!r} is not the name of an environment variable: use letters, digits, and _"
            )
        if name.upper().startswith(names.ENV_PREFIX):
            raise ValueError(f"{name!r}: names with {names.ENV_PREFIX} are the operator's own")
    return given


def _check_resources(given: dict[str, str | int]) -> dict[str, str | int]:
    for name, amount in given.items():
        if name not in NATIVE_RESOURCES and _RESOURCE.fullmatch(name) is None:
            raise ValueError(
                f"{name!r} is not a resource: use cpu, memory, ephemeral-storage, hugepages-SIZE, "
                "or the name of a device plugin, such as rdma/hca"
            )
        number = parse_quantity(str(amount))
        if "/" in name and number.denominator != 1:
            raise ValueError(f"{name}: {amount!r} is not a whole number of devices")
    return given


def _check_security(given: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(given.keys() - SECURITY_FIELDS):
        raise ValueError(f"{unknown[0]!r} is not a field of a container's securityContext")
    return given


GroupLabels = Annotated[dict[str, str], AfterValidator(_check_group_labels)]
Labels = Annotated[dict[str, str], AfterValidator(_check_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(_check_annotations)]
Environment = Annotated[dict[str, str], AfterValidator(_check_environment)]
Amounts = Annotated[dict[str, str | int], AfterValidator(_check_resources)]
ContainerSecurity = Annotated[dict[str, Any], AfterValidator(_check_security)]


class Volume(Wire):
    """A volume of a pod: a name, and one source in the format of Kubernetes."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(max_length=63, pattern=DNS_LABEL)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = sorted(self.model_extra or {})
        if len(sources) != 1 or sources[0] not in VOLUME_SOURCES:
            found = ", ".join(sources) or "nothing"
            raise ValueError(
                f"volume {self.name!r} has {found}: set exactly one source, such as hostPath, "
                "persistentVolumeClaim, or emptyDir"
            )
        if not isinstance((self.model_extra or {})[sources[0]], dict):
            raise ValueError(f"volume {self.name!r}: {sources[0]} is not an object")
        if self.name in OWN_VOLUMES or self.name.startswith(OWN_VOLUME_PREFIX):
            raise ValueError(
                f"volume {self.name!r} has a name of the operator's own volumes: choose another "
                f"one, which does not start with {OWN_VOLUME_PREFIX!r}"
            )
        return self


class VolumeMount(Wire):
    """Where the training container sees a volume of its runtime."""

    name: str
    mount_path: str = Field(min_length=1, max_length=1024)
    sub_path: str | None = None
    sub_path_expr: str | None = None
    read_only: bool | None = None
    recursive_read_only: Literal["Disabled", "IfPossible", "Enabled"] | None = None
    mount_propagation: Literal["None", "HostToContainer", "Bidirectional"] | None = None

    @model_validator(mode="after")
    def _has_a_free_path(self) -> Self:
        path = self.mount_path
        if not path.startswith("/") or ":" in path or ".." in path.split("/"):
            raise ValueError(f"mountPath {path!r} is not an absolute path without '..' and ':'")
        for own in OWN_PATHS:
            if is_below(self.path, own):
                raise ValueError(f"mountPath {path!r} is at or below {own}, which the pods need")
        if self.path in {"/", "/opt", "/dev"}:
            raise ValueError(f"mountPath {path!r} would hide files that the pods need")
        return self

    @property
    def path(self) -> str:
        """The path in its shortest form."""
        return "/" + posixpath.normpath(self.mount_path).lstrip("/")


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder or something in it. Both are in their shortest form."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def check_mounts(volumes: list[Volume], mounts: list[VolumeMount]) -> None:
    """Raise ValueError for a name that is missing, and for a name or path that is used twice."""
    known = [volume.name for volume in volumes]
    if twice := _first_repeated(known):
        raise ValueError(f"volumes: the name {twice!r} is used twice")
    for mount in mounts:
        if mount.name not in known:
            raise ValueError(
                f"volumeMounts: {mount.mount_path!r} names the volume {mount.name!r}, which is not "
                "among the volumes of the runtime"
            )
    if twice := _first_repeated([mount.path for mount in mounts]):
        raise ValueError(f"volumeMounts: the mountPath {twice!r} is used twice")


class ResourceClaim(Wire):
    """A claim of dynamic resource allocation (DRA) for each training pod."""

    name: str = Field(max_length=63, pattern=DNS_LABEL)
    resource_claim_name: str | None = Field(None, max_length=253, pattern=DNS_SUBDOMAIN)
    resource_claim_template_name: str | None = Field(None, max_length=253, pattern=DNS_SUBDOMAIN)
    # One request of the claim for the container. Otherwise, it gets the devices of all requests.
    request: str | None = Field(None, max_length=63, pattern=DNS_LABEL)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.resource_claim_name is None) == (self.resource_claim_template_name is None):
            raise ValueError(
                f"resource claim {self.name!r}: set exactly one of resourceClaimName and "
                "resourceClaimTemplateName"
            )
        return self

    def of_pod(self) -> dict[str, str]:
        """The entry of the pod's resourceClaims."""
        return {key: value for key, value in self.to_dict().items() if key != "request"}

    def of_container(self) -> dict[str, str]:
        """The entry of the container's resources.claims."""
        return {"name": self.name} | ({"request": self.request} if self.request else {})


def check_claims(claims: list[ResourceClaim]) -> None:
    """Raise ValueError for a name that is used twice."""
    if twice := _first_repeated([claim.name for claim in claims]):
        raise ValueError(f"resourceClaims: the name {twice!r} is used twice")


def _first_repeated(values: list[str]) -> str | None:
    return next((value for index, value in enumerate(values) if value in values[:index]), None)
