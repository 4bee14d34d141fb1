"""The common parts of all pods: Pod Security `restricted`, a read-only root, no API token."""

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_operator.build.credentials import SecretSource
from finetune_operator.build.store_network import (
    certificate_mounts,
    certificate_volumes,
    network_variables,
)
from finetune_operator.pod_fields import WORK
from finetune_operator.settings import Settings

CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
USER = 65532  # the user of the images; a number, so that the kubelet can check runAsNonRoot
ROOM = "1Gi"  # for the temporary files of a pod that reads and writes only small objects


def pod_spec(
    settings: Settings,
    source: SecretSource,
    container: dict[str, Any],
    volumes: list[dict[str, Any]],
    *,
    before: Sequence[dict[str, Any]] = (),
    room: str | None = ROOM,
    main_reads_secret: bool = True,
) -> dict[str, Any]:
    """Build a pod spec around one container.

    source: the Secret with the S3 credentials. container: image, env, resources, mounts.
    before: containers that must end first, with their names. room: most that the pod may write to
    /tmp; None: the requests and limits of the container count it. main_reads_secret: whether the
    main container gets the Secret as well, and not only those before it.
    """
    main_source = source if main_reads_secret else None
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security(settings),
        "containers": [_container(settings, main_source, container)],
        "volumes": [
            {"name": WORK, "emptyDir": {"sizeLimit": room} if room else {}},
            *volumes,
            *certificate_volumes(settings),
        ],
    }
    if before:
        spec["initContainers"] = [_container(settings, source, fields) for fields in before]
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return spec


def _security(settings: Settings) -> dict[str, Any]:
    """The pod's security context. OpenShift refuses pods that choose their own IDs."""
    ids = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return {
        "runAsNonRoot": True,
        **({} if settings.cluster_assigns_user_ids else ids),
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _environment(
    settings: Settings, source: SecretSource | None, own: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The container's variables, then those of the chart, then those of the Secret: each once."""
    found = [*own, _allowed_endpoints(settings)]
    found += [
        {"name": name, "value": value}
        for name, value in settings.pods.env.items()
        if name not in _names(own)
    ]
    found += network_variables(settings, _names(found))
    secret = source.variables(settings, _names(found)) if source else []
    return [*found, *secret]


def _names(variables: Sequence[dict[str, Any]]) -> set[str]:
    return {variable["name"] for variable in variables}


def _container(
    settings: Settings, source: SecretSource | None, fields: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": names.CONTAINER,
        "imagePullPolicy": settings.image_pull_policy,
        "securityContext": deepcopy(CONTAINER_SECURITY),
        "terminationMessagePath": names.TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **fields,
        "env": _environment(settings, source, fields["env"]),
        "volumeMounts": [
            {"name": WORK, "mountPath": "/tmp"},  # noqa: S108
            *fields.get("volumeMounts", []),
            *certificate_mounts(settings),
        ],
    }


def _allowed_endpoints(settings: Settings) -> dict[str, str]:
    """A variable, which no key of a Secret can replace: the pods refuse all other endpoints."""
    return {"name": names.ENV_ALLOWED_ENDPOINTS, "value": json.dumps(settings.allowed_endpoints)}


def retry_policy(*containers: str) -> dict[str, Any]:
    """A podFailurePolicy that never retries errors of the user and does not count disruptions.

    containers: those of ours besides the main one. The exit codes of injected ones mean nothing.
    """
    user_error = {"operator": "In", "values": [names.EXIT_USER]}
    return {
        "rules": [
            *(
                {"action": "FailJob", "onExitCodes": {"containerName": name, **user_error}}
                for name in (*containers, names.CONTAINER)
            ),
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        ]
    }


def deadline(settings: Settings) -> dict[str, int]:
    """The deadline of a Job without GPUs, with all of its retries, as a field of the Job's spec."""
    seconds = settings.cpu_job_deadline_seconds
    return {"activeDeadlineSeconds": seconds} if seconds else {}


def scheduling(finetune: FineTune) -> dict[str, Any]:
    """The user's priority class, node selector, and tolerations."""
    found: dict[str, Any] = {}
    if finetune.spec.priority_class_name:
        found["priorityClassName"] = finetune.spec.priority_class_name
    spec = finetune.spec.scheduling
    if spec is None:
        return found
    if spec.node_selector:
        found["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        found["tolerations"] = [toleration.to_dict() for toleration in spec.tolerations]
    return found
