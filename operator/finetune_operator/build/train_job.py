"""The Indexed Job and the headless Service of one attempt. All pods run the same command."""

from typing import Any

from finetune_api import names
from finetune_api.assignments import train_task
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.tasks import TrainTask
from finetune_operator.build.identity import attempt_name, child_metadata, labels
from finetune_operator.build.model_cache import cache_mounts, cache_ref, cache_volumes
from finetune_operator.build.pods import credentials, pod_spec, scheduling
from finetune_operator.settings import Settings

LOST_NODE_SECONDS = 30  # the default of 300 would leave the GPUs of the other pods idle
GRACE_SECONDS = 60  # for a checkpoint after SIGTERM


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
    micro_batch_share: float = 1,
) -> dict[str, Any]:
    """Build the Job. With a queue it starts suspended, and the queue owns `suspend` from then on.

    micro_batch_share: the share of a micro-batch's tokens, smaller after an out-of-memory error.
    """
    spec = finetune.spec
    name = attempt_name(finetune, attempt)
    metadata = child_metadata(finetune, name, names.COMPONENT_TRAIN, attempt)
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
            "metadata": {"labels": labels(finetune, names.COMPONENT_TRAIN, attempt)},
            "spec": _pod(finetune, resolved, settings, attempt, micro_batch_share),
        },
    }
    if spec.queue_name:
        # Kueue admits the Job by setting suspend to false.
        metadata["labels"][names.LABEL_KUEUE_QUEUE] = spec.queue_name
        job["suspend"] = True
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def build_service(finetune: FineTune, attempt: int, job_uid: str) -> dict[str, Any]:
    """Build the Service that gives the pods DNS names. The Job owns it."""
    name = attempt_name(finetune, attempt)
    metadata = child_metadata(finetune, name, names.COMPONENT_TRAIN, attempt)
    metadata["ownerReferences"] = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": name,
            "uid": job_uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
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
    finetune: FineTune, resolved: Resolved, settings: Settings, attempt: int, share: float
) -> dict[str, Any]:
    runtime = settings.runtime(resolved.runtime.name)
    container: dict[str, Any] = {
        "image": resolved.runtime.trainer_image,
        "env": [
            {
                "name": names.ENV_TASK,
                "value": build_train_task(finetune, resolved, settings, attempt, share).to_json(),
            },
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
        "resources": _resources(finetune),
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            *cache_mounts(runtime),
        ],
    }
    source = credentials(finetune, resolved.secret_name)
    shm: dict[str, Any] = {"medium": "Memory"}
    if finetune.spec.resources.shm:
        shm["sizeLimit"] = finetune.spec.resources.shm
    spec = {
        **pod_spec(
            *(settings, source, container),
            [{"name": "shm", "emptyDir": shm}, *cache_volumes(runtime)],
        ),
        **scheduling(finetune),
        "subdomain": attempt_name(finetune, attempt),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    }
    spec["tolerations"] = [*spec.get("tolerations", []), *_lost_node_tolerations()]
    return spec


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


def _resources(finetune: FineTune) -> dict[str, Any]:
    requested = finetune.spec.resources
    amounts: dict[str, str] = {}
    if requested.cpu:
        amounts["cpu"] = requested.cpu
    if requested.memory:
        amounts["memory"] = requested.memory
    if requested.gpus_per_node:
        amounts[requested.gpu_resource] = str(requested.gpus_per_node)
    return {"requests": amounts, "limits": dict(amounts)} if amounts else {}
