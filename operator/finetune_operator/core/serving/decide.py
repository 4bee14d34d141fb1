"""A served Model: which objects it needs now, how many pods, and its state.

A Lease has the time of the last use, which the gateway renews. A model that is not used sleeps: its
Deployment has no pods until the Lease is renewed. Kubernetes keeps trying to start pods, so that a
failed model recovers by itself when the cause is gone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from finetune_api import names
from finetune_api.model import Model
from finetune_api.serving import Serve, ServingState, ServingStatus
from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.build.serving import (
    ANNOTATION_TEMPLATE,
    build_deployment,
    build_lease,
    build_policy,
    build_service,
    serving_of,
)
from finetune_operator.core.observed import controller_of
from finetune_operator.core.plan import stamp
from finetune_operator.core.serving.pods import Cause, ServingPod, find_cause
from finetune_operator.messages import StatusMessage
from finetune_operator.runtimes import ServingRuntime
from finetune_operator.settings import Settings

GRACE_SECONDS = 60.0  # the gateway renews the Lease at most twice a minute
RECHECK_SECONDS = 10.0  # while pods start: not each change of theirs is an event
SWEEP_SECONDS = 300.0  # a watch may have lost an event


@dataclass(frozen=True)
class Child:
    """A Deployment, Service, Lease, or NetworkPolicy with a name of ours."""

    kind: str
    name: str
    uid: str
    version: str
    owner_uid: str | None
    model_uid: str | None  # the label that each object of ours has
    is_going: bool = False
    replicas: int = 0
    template: str | None = None  # the digest that the operator wrote
    refused: str | None = None  # why its pods cannot be created
    renewed_at: datetime | None = None

    @classmethod
    def parse(cls, kind: str, raw: JsonObject) -> Self:
        meta, spec = raw["metadata"], raw.get("spec", {})
        conditions = {item["type"]: item for item in raw.get("status", {}).get("conditions", [])}
        failure = conditions.get("ReplicaFailure", {})
        return cls(
            kind=kind,
            name=meta["name"],
            uid=meta["uid"],
            version=meta["resourceVersion"],
            owner_uid=controller_of(raw),
            model_uid=meta.get("labels", {}).get(names.LABEL_UID),
            is_going="deletionTimestamp" in meta,
            replicas=spec.get("replicas", 0) if kind == "Deployment" else 0,
            template=meta.get("annotations", {}).get(ANNOTATION_TEMPLATE),
            refused=failure.get("message") if failure.get("status") == "True" else None,
            renewed_at=_time(spec.get("renewTime")) if kind == "Lease" else None,
        )


@dataclass(frozen=True)
class ObservedServing:
    """A Model, the objects with the names of its server, and the pods."""

    model: Model
    children: tuple[Child, ...] = ()
    pods: tuple[ServingPod, ...] = ()
    refused: StatusMessage | None = None  # why the API server refuses an object

    def child(self, kind: str) -> Child | None:
        return next((child for child in self.children if child.kind == kind), None)

    @property
    def foreign(self) -> Child | None:
        """An object of another owner with a name of ours."""
        uid = self.model.metadata.uid

        def is_foreign(child: Child) -> bool:
            is_stolen = child.kind == "Deployment" and child.owner_uid != uid
            return is_stolen or child.model_uid != uid

        return next(filter(is_foreign, self.children), None)

    def has(self, manifest: JsonObject) -> bool:
        """Whether the object exists with its owner, and not with that of a former Deployment."""
        found = self.child(manifest["kind"])
        (owner,) = manifest["metadata"]["ownerReferences"]
        return found is not None and found.owner_uid == owner["uid"]


@dataclass(frozen=True)
class CreateChild:
    """Create an object."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class ChangeChild:
    """Replace these paths of an object, if it has not changed since."""

    child: Child
    values: dict[str, Any]


@dataclass(frozen=True)
class DeleteChild:
    """Delete an object, if it is still the same one."""

    child: Child


ServingAction = CreateChild | ChangeChild | DeleteChild


@dataclass(frozen=True)
class ServingPlan:
    """The actions, then the status, and an Event if the state has changed."""

    status: ServingStatus | None
    actions: tuple[ServingAction, ...] = ()
    requeue_after: float | None = None


def decide_serving(observed: ObservedServing, settings: Settings, now: datetime) -> ServingPlan:
    """Decide on the server of a Model at any point of its life."""
    model, serve = observed.model, observed.model.spec.serve
    assert settings.serving is not None
    if serve is None or model.metadata.deletion_timestamp is not None:
        return _removed(observed)
    runtime = settings.serving.find(serve.runtime)
    status = _Status(model, serve, runtime, now)
    if runtime is None:
        known = ", ".join(item.name for item in settings.serving.runtimes)
        message = messages.unknown_serving_runtime(serve.runtime or "", known)
        return ServingPlan(status.failed(message), requeue_after=SWEEP_SECONDS)
    if observed.foreign is not None:
        taken = f"{observed.foreign.kind} {observed.foreign.name}"
        message = messages.serving_name_taken(taken)
        return ServingPlan(status.failed(message), requeue_after=SWEEP_SECONDS)
    if observed.refused is not None:
        message = messages.serving_refused(observed.refused.reason, observed.refused.message)
        return ServingPlan(status.failed(message), requeue_after=RECHECK_SECONDS)
    replicas, left = _replicas(observed, serve, runtime, now)
    made = build_deployment(model, serve, runtime, settings, replicas)
    others = [build_policy(model, settings.pod_network)] if settings.pod_network else []
    actions = _actions(observed, others, made, now)
    found = _state(observed, settings.serving.patience_seconds, status, replicas)
    most = RECHECK_SECONDS if found.state in {"loading", "failed"} else SWEEP_SECONDS
    if actions:
        most = 0.0
    return ServingPlan(found, actions, most if left is None else min(left, most))


def _removed(observed: ObservedServing) -> ServingPlan:
    """Without spec.serve, and while the Model is deleted."""
    found = observed.child("Deployment")
    is_ours = found is not None and found.owner_uid == observed.model.metadata.uid
    if found is None or not is_ours or found.is_going:
        return ServingPlan(None)
    return ServingPlan(None, (DeleteChild(found),))


def _replicas(
    observed: ObservedServing, serve: Serve, runtime: ServingRuntime, now: datetime
) -> tuple[int, float | None]:
    """The number of pods that are wanted now, and the seconds until it may change."""
    least = serve.replicas if serve.min_replicas is None else serve.min_replicas
    lease, known = observed.child("Lease"), observed.model.status.serving
    if least >= serve.replicas or lease is None:
        return serve.replicas, None
    used = min(lease.renewed_at or now, now)
    seconds = serve.idle_seconds
    if known is not None and known.state == "ready":
        used = max(used, _time(known.since) or used)  # loading is no idleness
    elif known is None or known.state != "asleep":
        seconds = max(seconds, runtime.start_seconds)
    left = (used + timedelta(seconds=seconds + GRACE_SECONDS) - now).total_seconds()
    return (serve.replicas, left + 1) if left > 0 else (least, None)


def _actions(
    observed: ObservedServing, others: list[JsonObject], made: JsonObject, now: datetime
) -> tuple[ServingAction, ...]:
    """made: the Deployment. The next reconcile creates what it owns, and follows at once."""
    found = observed.child("Deployment")
    if found is not None and found.is_going:
        return ()
    if found is not None:
        model = observed.model
        others = [*others, build_service(model, found.uid), build_lease(model, found.uid, now)]
    actions: list[ServingAction] = [
        CreateChild(manifest) for manifest in others if not observed.has(manifest)
    ]
    if found is None:
        return (*actions, CreateChild(made))
    digest = made["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    values: dict[str, Any] = {}
    if found.template != digest:
        key = ANNOTATION_TEMPLATE.replace("/", "~1")
        values["/spec/template"] = made["spec"]["template"]
        values["/spec/progressDeadlineSeconds"] = made["spec"]["progressDeadlineSeconds"]
        values[f"/metadata/annotations/{key}"] = digest
    if found.replicas != made["spec"]["replicas"]:
        values["/spec/replicas"] = made["spec"]["replicas"]
    return (*actions, ChangeChild(found, values)) if values else tuple(actions)


def _state(
    observed: ObservedServing, patience: float, status: "_Status", replicas: int
) -> ServingStatus:
    ready = sum(pod.is_ready for pod in observed.pods)
    if replicas == 0:
        return status.asleep()
    deployment = observed.child("Deployment")
    refused = deployment.refused if deployment else None
    if ready >= replicas:
        return status.ready(replicas, replicas, None)
    cause = find_cause(observed.pods, replicas, refused)
    if ready:
        return status.ready(ready, replicas, cause.message.message if cause.is_failure else None)
    if not cause.is_failure:
        return status.make("loading", cause.message, replicas)
    if cause.is_certain or (cause.may_last and status.has_waited(patience)):
        return status.failed(cause.message, replicas, cause)
    return status.make("loading", cause.message, replicas, log=cause.log)


class _Status:
    """Makes the next status of one Model from the one before."""

    def __init__(
        self, model: Model, serve: Serve, runtime: ServingRuntime | None, now: datetime
    ) -> None:
        """runtime: None if the chart has none of that name."""
        self._model = model
        self._serve = serve
        self._runtime = runtime
        self._now = now
        self._before = model.status.serving

    def make(
        self,
        state: ServingState,
        message: StatusMessage,
        replicas: int,
        *,
        ready: int = 0,
        log: tuple[str, ...] = (),
    ) -> ServingStatus:
        before = self._before
        is_same = before is not None and before.state == state
        return ServingStatus(
            state=state,
            reason=message.reason,
            message=message.message,
            since=before.since if before is not None and is_same else stamp(self._now),
            runtime=self._runtime.name if self._runtime else None,
            engine=self._runtime.engine if self._runtime else None,
            service=serving_of(self._model),
            replicas=replicas,
            ready_replicas=ready,
            log=list(log) or None,
        )

    def ready(self, ready: int, replicas: int, others: str | None) -> ServingStatus:
        return self.make(
            "ready", messages.pods_answer(ready, replicas, others), replicas, ready=ready
        )

    def asleep(self) -> ServingStatus:
        before = self._before
        if before is not None and before.state == "asleep":
            message = StatusMessage(before.reason, before.message)
        else:
            failure = before.message if before is not None and before.state == "failed" else None
            message = messages.sleeps(self._serve.idle_seconds, failure)
        return self.make("asleep", message, 0)

    def failed(
        self, message: StatusMessage, replicas: int = 0, cause: Cause | None = None
    ) -> ServingStatus:
        return self.make("failed", message, replicas, log=cause.log if cause else ())

    def has_waited(self, seconds: float) -> bool:
        """Whether it has been without a ready pod for so long, or has been reported already."""
        before = self._before
        if before is None or before.state == "asleep":
            return False
        if before.state == "failed":
            return True
        since = _time(before.since) if before.state == "loading" else None
        return since is not None and (self._now - since).total_seconds() >= seconds


def event_of(before: ServingStatus | None, after: ServingStatus | None) -> StatusMessage | None:
    """The Event of a change of state; None if the state is the same."""
    if after is None:
        return messages.STOPPED if before is not None else None
    if before is not None and before.state == after.state:
        return None
    if after.state == "loading":  # the cause of a wait is not what has happened
        return messages.pods_load(after.replicas)
    return StatusMessage(after.reason, after.message)


def is_warning(after: ServingStatus | None) -> bool:
    return after is not None and after.state == "failed"


def _time(text: str | None) -> datetime | None:
    """A time of the API; None if it is missing or none: any client may write a Lease."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
