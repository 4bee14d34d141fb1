"""One attempt: a headless Service and an Indexed Job whose pods all run the same command."""

from typing import Any

from finetune_api import names
from finetune_api.assignments import train_task
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.tasks import TrainTask
from finetune_operator.build.identity import attempt_name, child_metadata, labels
from finetune_operator.build.pods import credentials, pod_spec, scheduling
from finetune_operator.settings import Settings

LOST_NODE_SECONDS = 30  # not Kubernetes' 300: a gang of GPUs waits meanwhile
GRACE_SECONDS = 60  # for a checkpoint at SIGTERM


def build_train_task(
    finetune: FineTune, resolved: Resolved, attempt: int, micro_batch_share: float = 1
) -> TrainTask:
    """What every pod of the attempt is told. resolved: with what the prepare Job found."""
    name = attempt_name(finetune, attempt)
    return train_task(
        *(finetune, resolved, attempt),
        micro_batch_share=micro_batch_share,
        master_host=f"{name}-0.{name}.{finetune.metadata.namespace}.svc",
        master_port=names.PORT_RENDEZVOUS,
        progress_port=names.PORT_PROGRESS,
    )


def build_train_job(
    finetune: FineTune,
    resolved: Resolved,
    settings: Settings,
    attempt: int,
    micro_batch_share: float = 1,
) -> dict[str, Any]:
    """`micro_batch_share`: of the tokens that a micro-batch may hold, smaller after memory ran out.

    With a queue it starts suspended; what admits it owns `suspend` from then on.
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
        # With no retries every pod that fails ends the Job; the rule only makes it remember the
        # cause, for an operator that comes when the pods are gone: a drain may have taken it along.
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}]
        },
        "template": {
            "metadata": {"labels": labels(finetune, names.COMPONENT_TRAIN, attempt)},
            "spec": _pod(finetune, resolved, settings, attempt, micro_batch_share),
        },
    }
    if spec.queue_name:
        # Kueue admits it by setting suspend to false, and owns the field from then on.
        metadata["labels"][names.LABEL_KUEUE_QUEUE] = spec.queue_name
        job["suspend"] = True
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def build_service(finetune: FineTune, attempt: int, job_uid: str) -> dict[str, Any]:
    """DNS names for the pods of an attempt; the attempt's Job owns it and takes it along."""
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
                "value": build_train_task(finetune, resolved, attempt, share).to_json(),
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
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }
    source = credentials(finetune, resolved.secret_name)
    shm: dict[str, Any] = {"medium": "Memory"}
    if finetune.spec.resources.shm:
        shm["sizeLimit"] = finetune.spec.resources.shm
    spec = {
        **pod_spec(settings, source, container, [{"name": "shm", "emptyDir": shm}]),
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
    asked = finetune.spec.resources
    amounts: dict[str, str] = {}
    if asked.cpu:
        amounts["cpu"] = asked.cpu
    if asked.memory:
        amounts["memory"] = asked.memory
    if asked.gpus_per_node:
        amounts[asked.gpu_resource] = str(asked.gpus_per_node)
    return {"requests": amounts, "limits": dict(amounts)} if amounts else {}
