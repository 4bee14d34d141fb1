"""The observed state of a FineTune and of its children: raw objects in, frozen values out."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.model import Model
from finetune_api.outcome import Outcome, ProgressReport
from finetune_api.wire import JsonObject
from finetune_operator.build.identity import attempt_name, lookup_name, prepare_name
from finetune_operator.core.containers import (
    InjectedFailure,
    current_container,
    find_injected_failure,
    find_running_init,
    find_wait,
    named,
)
from finetune_operator.core.rivals import NO_RIVALS, Rivals

ENDED_PHASES = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class KubeletEvent:
    """An Event of the kubelet about a pod. An empty reason: it runs an init container for long."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)  # thousands are in memory
class Pod:
    """One pod of a Job."""

    name: str
    index: int
    attempt: int | None
    phase: str
    ip: str | None
    node: str | None
    is_ready: bool
    is_going: bool  # has a deletionTimestamp
    is_disrupted: bool  # DisruptionTarget: drained, preempted, evicted, node lost
    disruption: str | None  # that condition's reason: PreemptionByScheduler, ...
    disruption_message: str | None
    exit_code: int | None
    exit_reason: str | None  # "OOMKilled", "Error"
    container: str  # the container that the values of this class describe
    memory_limit: str | None  # a Kubernetes quantity; the limit of the container
    message: str | None  # the termination message, or the log's tail
    waiting_reason: str | None
    waiting_message: str | None
    unscheduled_message: str | None
    pod_reason: str | None  # "Evicted", "UnexpectedAdmissionError": the kubelet's own
    pod_message: str | None
    started_at: datetime | None
    ended_at: datetime | None
    uid: str = ""
    waiting_container: str | None = None  # of the two fields above; it may be an injected one
    running_init: str | None = None  # an injected init container that the others wait for
    injected_failure: InjectedFailure | None = None  # it ended the pod, and none of ours did
    kubelet_event: KubeletEvent | None = None  # why the kubelet cannot start it; read when late
    priority: int = 0
    placed_at: datetime | None = None  # when it got a node, or was first refused one
    is_gated: bool = False  # the scheduler does not try to place it yet

    @property
    def outcome(self) -> Outcome | None:
        return Outcome.parse(self.message)

    @property
    def has_worked(self) -> bool:
        """Whether our container has ended."""
        return self.exit_code is not None or self.phase in ENDED_PHASES

    @property
    def has_failed(self) -> bool:
        return self.phase == "Failed" or (self.exit_code is not None and self.exit_code != 0)

    @classmethod
    def parse(cls, raw: JsonObject) -> Self:
        meta, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
        conditions = {item["type"]: item for item in status.get("conditions", [])}
        name, container, wanted = current_container(spec, status)
        state = container.get("state", {})
        ended = state.get("terminated") or {}
        limits = wanted.get("resources", {}).get("limits", {})
        wait = find_wait(status)
        scheduled = conditions.get("PodScheduled", {})
        disrupted = conditions.get("DisruptionTarget", {})
        labels = meta.get("labels", {})
        index = labels.get("batch.kubernetes.io/job-completion-index") or meta.get(
            "annotations", {}
        ).get("batch.kubernetes.io/job-completion-index", "0")
        return cls(
            name=meta["name"],
            index=_number(index) or 0,
            attempt=_number(labels.get(names.LABEL_ATTEMPT)),
            phase=status.get("phase", "Pending"),
            ip=status.get("podIP"),
            node=spec.get("nodeName"),
            is_ready=container.get("ready", conditions.get("Ready", {}).get("status") == "True"),
            is_going="deletionTimestamp" in meta,
            is_disrupted=disrupted.get("status") == "True",
            disruption=disrupted.get("reason"),
            disruption_message=disrupted.get("message"),
            exit_code=ended.get("exitCode"),
            exit_reason=ended.get("reason"),
            container=name,
            memory_limit=limits.get("memory"),
            message=ended.get("message"),
            waiting_reason=wait.reason if wait else None,
            waiting_message=wait.message if wait else None,
            waiting_container=wait.container if wait else None,
            unscheduled_message=(
                scheduled.get("message") if scheduled.get("status") == "False" else None
            ),
            pod_reason=status.get("reason"),
            pod_message=status.get("message"),
            started_at=_time(status.get("startTime")),
            ended_at=_time(ended.get("finishedAt")),
            uid=meta.get("uid", ""),
            running_init=find_running_init(spec, status),
            injected_failure=find_injected_failure(spec, status),
            priority=spec.get("priority") or 0,
            placed_at=_time(scheduled.get("lastTransitionTime")),
            is_gated=scheduled.get("reason") == "SchedulingGated",
        )


@dataclass(frozen=True)
class Workload:
    """Kueue's view of a Job."""

    waiting: str | None  # why it is not admitted
    evicted: str | None  # why its pods were evicted
    position: int | None = None  # in the local queue, from 1
    queue: str | None = None  # None: Kueue manages a Job that names no queue

    @classmethod
    def parse(cls, raw: JsonObject) -> Self:
        """Parse a Workload of kueue.x-k8s.io/v1beta1 or v1beta2."""
        spec, status = raw.get("spec") or {}, raw.get("status") or {}
        conditions = {item.get("type"): item for item in status.get("conditions") or ()}
        evicted = conditions.get("Evicted", {})
        return cls(
            waiting=_wait_for_admission(spec, status, conditions.get("QuotaReserved", {})),
            evicted=evicted.get("message") if evicted.get("status") == "True" else None,
            queue=spec.get("queueName") or None,
        )


def _wait_for_admission(spec: JsonObject, status: JsonObject, reserved: JsonObject) -> str | None:
    """Why a Workload is not admitted: it is deactivated, lacks quota, or waits for a check."""
    cause = reserved.get("message") or None
    if spec.get("active") is False:
        return "the Workload is deactivated" + (f": {cause}" if cause else "")
    if reserved.get("status") == "False":
        return cause
    for check in status.get("admissionChecks") or ():
        if check.get("state") != "Ready":
            text = f"admission check {check.get('name')} is {check.get('state')}"
            return text + (f": {check['message']}" if check.get("message") else "")
    return None


@dataclass(frozen=True)
class Job:
    """A prepare Job or an attempt."""

    name: str
    uid: str
    owner_uid: str | None
    component: str
    attempt: int | None
    is_going: bool  # has a deletionTimestamp
    is_suspended: bool
    has_failed: bool
    failure: str | None  # the Failed condition's message
    failure_reason: str | None  # that condition's reason: BackoffLimitExceeded, ...
    failed_at: datetime | None
    has_completed: bool
    pods: tuple[Pod, ...]
    task: str | None  # JSON, the input of its pods
    wanted: int  # number of pods
    created_at: datetime | None
    deleted_at: datetime | None = None
    has_begun: bool = False  # the Job controller has processed it
    completed_at: datetime | None = None
    refused: str | None = None  # why its pods cannot be created
    queue: str | None = None  # Kueue's local queue that its label names
    workload: Workload | None = None  # Kueue's view of it
    may_have_workload: bool = False  # the cluster has Kueue, whose view of it cannot be read
    version: str | None = None  # the resource version
    deadline: int | None = None  # seconds, which all of its pods have together
    passed_deadline: bool = False  # its pods end because of it, or have ended
    devices: tuple[tuple[str, int], ...] = ()  # extended resources of each pod, by name
    is_grouped: bool = False  # its pods wait for their PodGroup

    @property
    def lacks_pods(self) -> bool:
        """Whether fewer pods exist than the Job controller should have created."""
        has_ended = self.is_going or self.has_failed or self.is_suspended
        return not has_ended and len(self.pods) < self.wanted

    @property
    def is_over(self) -> bool:
        """Whether all of its pods have ended."""
        return bool(self.pods) and all(pod.phase in ENDED_PHASES for pod in self.pods)

    @property
    def is_live(self) -> bool:
        """Whether it can hold or create pods: it has not ended, and is not being deleted."""
        return not (self.is_going or self.has_failed or self.has_completed)

    @property
    def has_worked(self) -> bool:
        """Whether our container has ended in each of its pods. Injected containers may continue."""
        indexes = {pod.index for pod in self.pods}
        return len(indexes) >= self.wanted and all(pod.has_worked for pod in self.pods)

    @property
    def rank0(self) -> Pod | None:
        """The newest pod of index 0."""
        return next((pod for pod in reversed(self.pods) if pod.index == 0), None)

    @property
    def started_at(self) -> datetime | None:
        return min((pod.started_at for pod in self.pods if pod.started_at), default=None)

    @classmethod
    def parse(cls, raw: JsonObject, pods: list[JsonObject]) -> Self:
        meta, spec = raw["metadata"], raw["spec"]
        conditions = {
            item["type"]: item
            for item in raw.get("status", {}).get("conditions", [])
            if item["status"] == "True"
        }
        failed, complete = conditions.get("Failed"), conditions.get("Complete")
        failing = failed or conditions.get("FailureTarget", {})  # its pods still end
        mine = [pod for pod in pods if controller_of(pod) == meta["uid"]]
        mine.sort(
            key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"])
        )
        containers = spec["template"]["spec"]["containers"]
        container = named(names.CONTAINER, containers) or {}
        env = {item["name"]: item.get("value") for item in container.get("env", [])}
        labels = meta.get("labels", {})
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            owner_uid=controller_of(raw),
            component=labels.get(names.LABEL_COMPONENT, ""),
            attempt=_number(labels.get(names.LABEL_ATTEMPT)),
            is_going="deletionTimestamp" in meta,
            is_suspended=bool(spec.get("suspend")),
            has_failed=failed is not None,
            failure=failed.get("message") if failed else None,
            failure_reason=failed.get("reason") if failed else None,
            failed_at=_time(failed.get("lastTransitionTime")) if failed else None,
            has_completed=complete is not None,
            completed_at=_time(complete.get("lastTransitionTime")) if complete else None,
            pods=tuple(Pod.parse(pod) for pod in mine),
            task=env.get(names.ENV_TASK),
            wanted=spec.get("completions") or 1,
            created_at=_time(meta.get("creationTimestamp")),
            deleted_at=_time(meta.get("deletionTimestamp")),
            has_begun="startTime" in raw.get("status", {}),
            queue=labels.get(names.LABEL_KUEUE_QUEUE) or None,
            version=meta.get("resourceVersion"),
            deadline=spec.get("activeDeadlineSeconds"),
            passed_deadline=failing.get("reason") == "DeadlineExceeded",
            devices=_devices(containers),
            is_grouped="schedulingGroup" in spec["template"]["spec"],
        )


@dataclass(frozen=True)
class ForeignObject:
    """An object that has a name of ours and belongs to another owner."""

    kind: str
    name: str
    finetune: str | None = None  # the FineTune that it belongs to, if any

    def __str__(self) -> str:
        owner = f" of FineTune {self.finetune}" if self.finetune else ""
        return f"{self.kind} {self.name}{owner}"

    def to_command(self, namespace: str) -> str:
        """The command that shows the object."""
        return f"kubectl get {self.kind.lower()} {self.name} -n {namespace} -o yaml"


@dataclass(frozen=True)
class Observed:
    """One observation: everything that a decision uses besides the settings and the time."""

    finetune: FineTune
    jobs: tuple[Job, ...] = ()
    services: frozenset[str] = frozenset()
    models: tuple[Model, ...] = ()  # all in the namespace; only until the base model is resolved
    progress: ProgressReport | None = None
    foreign: tuple[ForeignObject, ...] = ()  # objects of others with names that it needs
    going_models: frozenset[str] = frozenset()  # addresses whose files a Model deletes with itself
    is_live: bool = False  # read from the API server, and not from what the watches reported
    group_version: str = ""  # of PodGroups, if they are served and may be created
    rivals: Rivals = NO_RIVALS  # of an attempt that lacks nodes; always from the watches

    def __post_init__(self) -> None:
        """Leave out the Jobs that are not ours, so that no decision can use them."""
        object.__setattr__(self, "jobs", own_jobs(self.finetune, self.jobs))

    @property
    def prepare_job(self) -> Job | None:
        return next((job for job in self.jobs if job.component == names.COMPONENT_PREPARE), None)

    @property
    def lookup_job(self) -> Job | None:
        return next((job for job in self.jobs if job.component == names.COMPONENT_LOOKUP), None)

    @property
    def attempts(self) -> dict[int, Job]:
        return {
            job.attempt: job
            for job in self.jobs
            if job.component == names.COMPONENT_TRAIN and job.attempt is not None
        }


def own_jobs(finetune: FineTune, jobs: Iterable[Job]) -> tuple[Job, ...]:
    """The Jobs with the owner and exactly the names of ours.

    Who may create Jobs can write any label and owner. Attempts follow each other, so at most one
    is not recorded.
    """
    newest = max((item.number for item in finetune.status.attempts), default=0)
    fixed = {
        names.COMPONENT_PREPARE: prepare_name(finetune),
        names.COMPONENT_LOOKUP: lookup_name(finetune),
    }

    def is_ours(job: Job) -> bool:
        if job.owner_uid != finetune.metadata.uid:
            return False
        if job.component != names.COMPONENT_TRAIN:
            return job.attempt is None and job.name == fixed.get(job.component)
        number = job.attempt or 0
        return 0 < number <= newest + 1 and job.name == attempt_name(finetune, number)

    return tuple(job for job in jobs if is_ours(job))


def controller_of(raw: JsonObject) -> str | None:
    """The UID of the owner that controls an object."""
    owners = raw["metadata"].get("ownerReferences", [])
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _devices(containers: list[JsonObject]) -> tuple[tuple[str, int], ...]:
    """The extended resources of a pod, such as nvidia.com/gpu. Their amounts are whole numbers."""
    found: dict[str, int] = {}
    for container in containers:
        resources = container.get("resources", {})
        for name, amount in (resources.get("requests", {}) | resources.get("limits", {})).items():
            if "/" in name:
                found[name] = found.get(name, 0) + (_number(str(amount)) or 0)
    return tuple(sorted(found.items()))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
