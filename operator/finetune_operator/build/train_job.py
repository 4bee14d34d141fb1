"""The Indexed Job and the headless Service of one attempt. All pods run the same command."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api import names
from finetune_api.assignments import train_task
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.quantities import gib_to_quantity
from finetune_api.tasks import FallbackPlan, TrainTask
from finetune_operator.build.credentials import credentials
from finetune_operator.build.identity import attempt_name, child_metadata, labels
from finetune_operator.build.model_cache import cache_mounts, cache_ref, cache_volumes
from finetune_operator.build.placement import placement
from finetune_operator.build.pod_group import group_reference
from finetune_operator.build.pod_metadata import pod_metadata
from finetune_operator.build.pod_resources import pod_resources
from finetune_operator.build.pods import CONTAINER_SECURITY, pod_spec, scheduling
from finetune_operator.build.queueing import put_in_queue
from finetune_operator.pod_fields import SHM
from finetune_operator.settings import EPHEMERAL_STORAGE, Settings

LOST_NODE_SECONDS = 30  # the default of 300 would leave the GPUs of the other pods idle
GRACE_SECONDS = 60  # after SIGTERM, for the end of the current step and a small checkpoint
SPARE_GIB = 10  # of disk, in addition to twice the estimate, before a pod is evicted
LONGEST_GRACE_SECONDS = 1800  # a pod that hangs holds its GPUs for at most this time


@dataclass(frozen=True)
class AttemptSize:
    """What later attempts change after one that ran out of memory."""

    micro_batch_share: float = 1  # of the normal number of tokens
    memory_raises: int = 0  # of the estimated memory request
    fallback: FallbackPlan | None = None  # instead of the plan in status.resolved

    def applied_to(self, resolved: Resolved) -> Resolved:
        """The settings of the attempt: those of the FineTune, with the fallback plan."""
        if self.fallback is None:
            return resolved
        return resolved.replace(**{name: getattr(self.fallback, name) for name in _PLAN})


_PLAN = tuple(FallbackPlan.model_fields)


def grace_seconds(resolved: Resolved, settings: Settings) -> int:
    """The time that a pod gets after SIGTERM to copy, hash, and upload its part of a checkpoint.

    Without an estimate, as in a status of an older version, it is GRACE_SECONDS.
    """
    size = (resolved.checkpoint_per_pod_gib or 0) * 2**30
    seconds = GRACE_SECONDS + size / (settings.checkpoint_bandwidth * 1_000_000)
    return int(min(seconds, LONGEST_GRACE_SECONDS))


def build_train_task(
    finetune: FineTune,
    resolved: Resolved,
    settings: Settings,
    attempt: int,
    micro_batch_share: float = 1,
) -> TrainTask:
    """The input of every pod of the attempt. resolved: with the results of the prepare Job."""
    name = attempt_name(finetune, attempt)
    return train_task(
        *(finetune, resolved, attempt),
        micro_batch_share=micro_batch_share,
        master_host=f"{name}-0.{name}.{finetune.metadata.namespace}.svc",
        master_port=names.PORT_RENDEZVOUS,
        progress_port=names.PORT_PROGRESS,
        model_cache=cache_ref(settings.runtime(resolved.runtime.name)),
    )


def build_train_job(
    finetune: FineTune,
    resolved: Resolved,
    settings: Settings,
    attempt: int,
    size: AttemptSize = AttemptSize(),
    *,
    avoided: Sequence[str] = (),
    is_grouped: bool = False,
) -> dict[str, Any]:
    """Build the Job. With a queue it starts suspended, and the queue owns `suspend` from then.

    avoided: names of nodes to which the scheduler prefers all others. is_grouped: the cluster has
    groups of pods, and that of the attempt is created with its Service.
    """
    spec = finetune.spec
    resolved = size.applied_to(resolved)
    name = attempt_name(finetune, attempt)
    metadata = child_metadata(finetune, name, names.COMPONENT_TRAIN, attempt)
    runtime = settings.runtime(resolved.runtime.name)
    job: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": spec.resources.nodes,
        "parallelism": spec.resources.nodes,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        # Without retries every failed pod ends the Job. The rule only records the cause, for an
        # operator that was drained together with the pods and finds them gone.
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}]
        },
        "template": {
            "metadata": pod_metadata(
                settings,
                labels(finetune, names.COMPONENT_TRAIN, attempt),
                finetune=finetune,
                runtime=runtime.of_group(name, spec.resources.nodes) if runtime else None,
            ),
            "spec": {
                **_pod(finetune, resolved, settings, attempt, size),
                **placement(runtime, avoided),
                **(group_reference(name) if is_grouped else {}),
            },
        },
    }
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}
    return put_in_queue(made, spec.queue_name)


def job_reference(name: str, uid: str) -> dict[str, Any]:
    """The owner of what goes with the Job of an attempt."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def build_service(finetune: FineTune, attempt: int, job_uid: str) -> dict[str, Any]:
    """Build the Service that gives the pods DNS names. The Job owns it."""
    name = attempt_name(finetune, attempt)
    metadata = child_metadata(finetune, name, names.COMPONENT_TRAIN, attempt)
    metadata["ownerReferences"] = [job_reference(name, job_uid)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            # The names of the pods have addresses of all families that the cluster has.
            "ipFamilyPolicy": "PreferDualStack",
            "publishNotReadyAddresses": True,
            "selector": {
                names.LABEL_UID: finetune.metadata.uid,
                names.LABEL_ATTEMPT: str(attempt),
            },
            "ports": [
                {"name": "rendezvous", "port": names.PORT_RENDEZVOUS},
                {"name": "progress", "port": names.PORT_PROGRESS},
            ],
        },
    }


def _pod(
    finetune: FineTune, resolved: Resolved, settings: Settings, attempt: int, size: AttemptSize
) -> dict[str, Any]:
    task = build_train_task(finetune, resolved, settings, attempt, size.micro_batch_share)
    runtime = settings.runtime(resolved.runtime.name)
    container: dict[str, Any] = {
        "image": resolved.runtime.trainer_image,
        "env": [
            {"name": names.ENV_TASK, "value": task.to_json()},
            *(
                {"name": key, "value": value}
                for key, value in (runtime.env if runtime else {}).items()
            ),
        ],
        "ports": [{"name": "progress", "containerPort": names.PORT_PROGRESS}],
        "readinessProbe": {
            "httpGet": {"path": "/progress", "port": "progress"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 30,
        },
        "resources": pod_resources(finetune, resolved, settings, size.memory_raises),
        "volumeMounts": [
            {"name": SHM, "mountPath": "/dev/shm"},  # noqa: S108
            *cache_mounts(runtime),
            *(mount.to_dict() for mount in (runtime.volume_mounts if runtime else ())),
        ],
    }
    if runtime and runtime.security_context:
        container["securityContext"] = CONTAINER_SECURITY | runtime.security_context
    source = credentials(finetune, resolved.secret_name)
    shm: dict[str, Any] = {"medium": "Memory"}
    if finetune.spec.resources.shm:
        shm["sizeLimit"] = finetune.spec.resources.shm
    spec = {
        **pod_spec(
            *(settings, source, container),
            [
                {"name": SHM, "emptyDir": shm},
                *cache_volumes(runtime),
                *(volume.to_dict() for volume in (runtime.volumes if runtime else ())),
            ],
            room=_room(container["resources"], resolved),
        ),
        **scheduling(finetune),
        "subdomain": attempt_name(finetune, attempt),
        "terminationGracePeriodSeconds": grace_seconds(resolved, settings),
    }
    if runtime and runtime.resource_claims:
        spec["resourceClaims"] = [claim.of_pod() for claim in runtime.resource_claims]
    spec["tolerations"] = [*spec.get("tolerations", []), *_lost_node_tolerations()]
    return spec


def _room(resources: dict[str, Any], resolved: Resolved) -> str | None:
    """A bound of /tmp for pods whose disk is neither requested nor limited, far above the estimate.

    A pod of a status without an estimate, as of an older version, has none.
    """
    gib = resolved.storage_per_pod_gib
    if gib is None or EPHEMERAL_STORAGE in resources.get("requests", {}):
        return None
    return gib_to_quantity(2 * gib + SPARE_GIB)


def _lost_node_tolerations() -> list[dict[str, Any]]:
    return [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": LOST_NODE_SECONDS,
        }
        for taint in ("not-ready", "unreachable")
    ]
