"""Names on which users and programs rely: group, labels, states, reasons, exit codes, ports."""

from typing import Final

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# Labels and annotations. Selectors use the UID; the name is for users.
LABEL_FINETUNE = f"{GROUP}/finetune"
LABEL_UID = f"{GROUP}/finetune-uid"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "finetune-operator"
COMPONENT_PREPARE = "prepare"
COMPONENT_TRAIN = "train"
COMPONENT_LOOKUP = "lookup"
COMPONENT_DELETION = "deletion"
COMPONENT_NETWORK = "network"
COMPONENT_SERVING = "serving"  # the pods, Deployment, Service, and Lease of a served Model
ANNOTATION_MODEL = f"{GROUP}/model"  # the id of a Model is too long for a label
ANNOTATION_QUEUE = f"{GROUP}/queue"  # of a Model: Kueue's queue of the Job that deletes its files
ANNOTATION_ADOPTED_FROM = f"{GROUP}/adopted-from"  # on Models: the UID of the former FineTune
FINALIZER_MODEL = f"{GROUP}/model-files"  # on Models whose deletionPolicy is Delete
# On FineTunes of the gateway: a digest of the request, by which a repeated one finds its FineTune,
# and the metadata of OpenAI's fine-tuning API as JSON.
LABEL_REQUEST = f"{GROUP}/request"
ANNOTATION_METADATA = f"{GROUP}/metadata"
LABEL_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_KUEUE_JOB_UID = "kueue.x-k8s.io/job-uid"

# The contract between the operator and the pods.
ENV_PREFIX = "FINETUNE_"  # of all variables of this contract
ENV_TASK = "FINETUNE_TASK"  # JSON of a task, such as a TrainTask
# A file that the containers of the prepare pod share: the first one resolves the base model.
ENV_BASE_REVISION = "FINETUNE_BASE_REVISION_FILE"
# JSON: patterns of the endpoints that pods may connect to; empty: any. Without it, as on a user's
# machine, nothing is checked.
ENV_ALLOWED_ENDPOINTS = "FINETUNE_ALLOWED_ENDPOINTS"
ENV_LOCAL_ROOT = "FINETUNE_LOCAL_ROOT"  # without a cluster: the directory of LOCAL_BUCKET
LOCAL_BUCKET = "finetune-local"
# A file of certificates that S3 and the hub are checked with, in addition to the public ones.
ENV_CERTIFICATES = "FINETUNE_CA_BUNDLE"
# auto, path, or virtual: where the name of the bucket is in the URL of a request.
ENV_ADDRESSING_STYLE = "AWS_S3_ADDRESSING_STYLE"  # a key of the Secret
ENV_DEFAULT_ADDRESSING_STYLE = "FINETUNE_S3_ADDRESSING_STYLE"  # the chart's value
ADDRESSING_STYLES = ("auto", "path", "virtual")
CONTAINER = "main"
CONTAINER_BASE_CHECK = "base-check"  # of the prepare pod, before the main container
CONTAINER_FETCH = "fetch"  # of a serving pod, before the main container
PORT_PROGRESS = 9464  # /progress and /metrics of rank 0
PORT_RENDEZVOUS = 29500
NODE_LINE = "node: "  # starts the line of a training pod's log about its hardware
NETWORK_LINE = "NCCL uses "  # starts the one about the network, after "warning: " if it is slow
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
TERMINATION_MESSAGE_BYTES = 4000

# Exit codes of the pods. The reference page publishes the comments.
EXIT_OK = 0  # The pod succeeded.
EXIT_CRASH = 1  # An unexpected error occurred.
EXIT_USER = 65  # Data or settings are invalid. The operator does not retry. (EX_DATAERR)
EXIT_UNAVAILABLE = 69  # Storage did not respond, even after retries. (EX_UNAVAILABLE)
EXIT_PREEMPTED = 143  # SIGTERM ended the pod, after a checkpoint if time allowed.


class State:
    """Values of `status.state`, which are those of OpenAI's fine-tunes API."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_STATES = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Stage:
    """Values of `status.stage`. A training reports those from STARTING on."""

    VALIDATING: Final = "validating"
    QUEUED: Final = "queued"
    STARTING: Final = "starting"
    TRAINING: Final = "training"
    EVALUATING: Final = "evaluating"
    PUBLISHING: Final = "publishing"


class Reason:
    """Machine-readable reasons in conditions, `status.error.code`, Failure.code, and Events."""

    # A FineTune waits, runs, or ended as intended.
    ACCEPTED = "Accepted"
    VALIDATING = "Validating"
    STARTING = "Starting"
    QUEUED = "Queued"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POLICY_DENIED = "PolicyDenied"
    WEBHOOK_FAILED = "WebhookFailed"
    FORBIDDEN = "Forbidden"
    REQUEST_REFUSED = "RequestRefused"
    PODS_REFUSED = "PodsRefused"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL = "ImagePull"
    VOLUME_MOUNT = "VolumeMount"
    POD_SANDBOX = "PodSandbox"
    CONTAINER_CONFIG = "ContainerConfig"
    TRAINING = "Training"
    RESTARTING = "Restarting"
    SUCCEEDED = "Succeeded"
    ADOPTED = "Adopted"
    DRY_RUN = "DryRun"
    CANCELLED = "Cancelled"
    SUSPENDED = "Suspended"
    # The user must change data, settings, or permissions.
    INVALID_SPEC = "InvalidSpec"
    INVALID_DATA = "InvalidData"
    DATA_NOT_FOUND = "DataNotFound"
    UNKNOWN_MODEL = "UnknownModel"
    UNKNOWN_RUNTIME = "UnknownRuntime"
    BASE_MODEL_NOT_FOUND = "BaseModelNotFound"
    BASE_MODEL_INVALID = "BaseModelInvalid"
    BASE_MODEL_CHANGED = "BaseModelChanged"
    MODEL_CHANGED = "ModelChanged"
    S3_ACCESS_DENIED = "S3AccessDenied"
    BUCKET_NOT_FOUND = "BucketNotFound"
    NAN_LOSS = "NaNLoss"
    FOREIGN_FILES = "ForeignFiles"
    # Another attempt may succeed, or an object was deleted or belongs to another owner.
    S3_UNAVAILABLE = "S3Unavailable"
    OUT_OF_MEMORY = "OutOfMemory"
    DRIVER_TOO_OLD = "DriverTooOld"
    GPU_UNUSABLE = "GPUUnusable"
    RANK_CRASHED = "RankCrashed"
    INJECTED_CONTAINER = "InjectedContainer"
    POD_LOST = "PodLost"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    GANG_RELEASED = "GangReleased"
    EVICTED = "Evicted"
    STALLED = "Stalled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RESULT_LOST = "ResultLost"
    JOB_DELETED = "JobDeleted"
    FOREIGN_OBJECT = "ForeignObject"
    INTERNAL = "InternalError"


class ServingReason:
    """Reasons of a Model's status.serving and of its Events, in addition to those of pods."""

    LOADING = "Loading"
    READY = "Ready"
    ASLEEP = "Asleep"
    STOPPED = "Stopped"  # spec.serve was removed
    SERVER_CRASHED = "ServerCrashed"


class FilesReason:
    """Reasons of a Model's condition FilesDeleted, in addition to those of pods."""

    IN_USE = "InUse"  # an unfinished FineTune continues from the model
    NAMESPACE_TERMINATING = "NamespaceTerminating"  # no Job can start; the files stay


# Reasons of a FineTune that progresses or has ended as intended.
HEALTHY_REASONS = frozenset(
    {
        Reason.ACCEPTED,
        Reason.VALIDATING,
        Reason.STARTING,
        Reason.TRAINING,
        Reason.RESTARTING,
        Reason.SUCCEEDED,
        Reason.ADOPTED,
        Reason.DRY_RUN,
        Reason.CANCELLED,
        Reason.SUSPENDED,
    }
)

# Reasons for which the user must change something. The pod exits with EXIT_USER.
USER_REASONS = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.INVALID_DATA,
        Reason.DATA_NOT_FOUND,
        Reason.UNKNOWN_MODEL,
        Reason.UNKNOWN_RUNTIME,
        Reason.BASE_MODEL_NOT_FOUND,
        Reason.BASE_MODEL_INVALID,
        Reason.BASE_MODEL_CHANGED,
        Reason.MODEL_CHANGED,
        Reason.S3_ACCESS_DENIED,
        Reason.BUCKET_NOT_FOUND,
        Reason.NAN_LOSS,
        Reason.FOREIGN_FILES,
    }
)

# Reasons for which requested pods do not run yet. An attempt that a deadline ends in this state
# gets the same reason.
PENDING_REASONS = frozenset(
    {
        Reason.QUEUED,
        Reason.QUOTA_EXCEEDED,
        Reason.POLICY_DENIED,
        Reason.WEBHOOK_FAILED,
        Reason.FORBIDDEN,
        Reason.REQUEST_REFUSED,
        Reason.PODS_REFUSED,
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL,
        Reason.VOLUME_MOUNT,
        Reason.POD_SANDBOX,
        Reason.CONTAINER_CONFIG,
    }
)

# Reasons for which the API server refuses a request of the operator.
REFUSAL_REASONS = frozenset(
    {
        Reason.QUOTA_EXCEEDED,
        Reason.POLICY_DENIED,
        Reason.WEBHOOK_FAILED,
        Reason.INVALID_SPEC,
        Reason.FORBIDDEN,
        Reason.REQUEST_REFUSED,
    }
)

# All reasons of an ended attempt. A reason of a pod that is not among them becomes INTERNAL.
END_REASONS = (
    USER_REASONS
    | PENDING_REASONS
    | {
        Reason.SUCCEEDED,
        Reason.SUSPENDED,
        Reason.CANCELLED,
        Reason.S3_UNAVAILABLE,
        Reason.OUT_OF_MEMORY,
        Reason.DRIVER_TOO_OLD,
        Reason.GPU_UNUSABLE,
        Reason.RANK_CRASHED,
        Reason.INJECTED_CONTAINER,
        Reason.POD_LOST,
        Reason.NODE_LOST,
        Reason.PREEMPTED,
        Reason.GANG_RELEASED,
        Reason.EVICTED,
        Reason.STALLED,
        Reason.DEADLINE_EXCEEDED,
        Reason.RESULT_LOST,
        Reason.JOB_DELETED,
        Reason.FOREIGN_OBJECT,
        Reason.INTERNAL,
    }
)
