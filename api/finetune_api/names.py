"""Names that people and programs rely on: group, kinds, labels, reasons, exit codes, ports."""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# Labels. The UID is the selector; the name is for people.
LABEL_FINETUNE = f"{GROUP}/finetune"
LABEL_UID = f"{GROUP}/finetune-uid"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_INSTANCE = f"{GROUP}/operator"
MANAGED_BY = "finetune-operator"
COMPONENT_PREPARE = "prepare"
COMPONENT_TRAIN = "train"
COMPONENT_DELETION = "deletion"
COMPONENT_NETWORK = "network"
ANNOTATION_MODEL = f"{GROUP}/model"  # a Model's name is too long for a label
FINALIZER_MODEL = f"{GROUP}/model-files"  # only where deletionPolicy is Delete
LABEL_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_KUEUE_JOB_UID = "kueue.x-k8s.io/job-uid"

# The pods' contract.
ENV_TASK = "FINETUNE_TASK"  # JSON of PrepareTask or TrainTask
ENV_LOCAL_ROOT = "FINETUNE_LOCAL_ROOT"  # a folder that is LOCAL_BUCKET, where there is no cluster
LOCAL_BUCKET = "finetune-local"
CONTAINER = "main"
PORT_PROGRESS = 9464  # rank 0's /progress and /metrics
PORT_RENDEZVOUS = 29500
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
TERMINATION_MESSAGE_BYTES = 4000

# Exit codes of the pods. The user's fault is never retried; all else may be.
EXIT_OK = 0
EXIT_CRASH = 1  # anything that nobody foresaw
EXIT_USER = 65  # data or settings that no retry heals (sysexits' EX_DATAERR)
EXIT_UNAVAILABLE = 69  # storage that does not answer, after retries (EX_UNAVAILABLE)
EXIT_PREEMPTED = 143  # ended by SIGTERM, after a checkpoint where there was time


class State:
    """`status.state`, the old service's words."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_STATES = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Stage:
    """`status.stage`: where in its life a FineTune is."""

    VALIDATING = "validating"
    QUEUED = "queued"
    STARTING = "starting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    PUBLISHING = "publishing"


class Reason:
    """Machine reasons: in conditions, in `status.error.code`, in Outcome.code, in Events."""

    ACCEPTED = "Accepted"
    VALIDATING = "Validating"
    STARTING = "Starting"
    QUEUED = "Queued"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PODS_REFUSED = "PodsRefused"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL = "ImagePull"
    CONTAINER_CONFIG = "ContainerConfig"
    TRAINING = "Training"
    RESTARTING = "Restarting"
    SUCCEEDED = "Succeeded"
    DRY_RUN = "DryRun"
    CANCELLED = "Cancelled"
    SUSPENDED = "Suspended"
    # Ends that the user mends
    INVALID_SPEC = "InvalidSpec"
    INVALID_DATA = "InvalidData"
    DATA_NOT_FOUND = "DataNotFound"
    UNKNOWN_MODEL = "UnknownModel"
    UNKNOWN_RUNTIME = "UnknownRuntime"
    BASE_MODEL_NOT_FOUND = "BaseModelNotFound"
    BASE_MODEL_INVALID = "BaseModelInvalid"
    S3_ACCESS_DENIED = "S3AccessDenied"
    BUCKET_NOT_FOUND = "BucketNotFound"
    # Ends that another attempt may heal
    S3_UNAVAILABLE = "S3Unavailable"
    OUT_OF_MEMORY = "OutOfMemory"
    NAN_LOSS = "NaNLoss"
    RANK_CRASHED = "RankCrashed"
    POD_LOST = "PodLost"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    STALLED = "Stalled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    MAX_RESTARTS = "MaxRestartsSpent"
    JOB_DELETED = "JobDeleted"
    FOREIGN_OBJECT = "ForeignObject"
    INTERNAL = "InternalError"


# Codes that mean: the user must change something; the pod exits with EXIT_USER.
USER_REASONS = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.INVALID_DATA,
        Reason.DATA_NOT_FOUND,
        Reason.UNKNOWN_MODEL,
        Reason.UNKNOWN_RUNTIME,
        Reason.BASE_MODEL_NOT_FOUND,
        Reason.BASE_MODEL_INVALID,
        Reason.S3_ACCESS_DENIED,
        Reason.BUCKET_NOT_FOUND,
        Reason.NAN_LOSS,
    }
)

# Why pods that were asked for do not work yet; a deadline that passes meanwhile ends them so.
PENDING_REASONS = frozenset(
    {
        Reason.QUEUED,
        Reason.QUOTA_EXCEEDED,
        Reason.PODS_REFUSED,
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL,
        Reason.CONTAINER_CONFIG,
    }
)

# All that an attempt's `reason` can be: a pod that says anything else is told as INTERNAL.
END_REASONS = (
    USER_REASONS
    | PENDING_REASONS
    | {
        Reason.SUCCEEDED,
        Reason.SUSPENDED,
        Reason.CANCELLED,
        Reason.S3_UNAVAILABLE,
        Reason.OUT_OF_MEMORY,
        Reason.RANK_CRASHED,
        Reason.POD_LOST,
        Reason.NODE_LOST,
        Reason.PREEMPTED,
        Reason.EVICTED,
        Reason.STALLED,
        Reason.DEADLINE_EXCEEDED,
        Reason.JOB_DELETED,
        Reason.FOREIGN_OBJECT,
        Reason.INTERNAL,
    }
)
