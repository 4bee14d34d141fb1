"""The objects of a served Model: Deployment, Service, Lease, and NetworkPolicy.

The Model owns the Deployment and the policy. The Deployment owns the Service and the Lease, so that
one deletion removes all, also what a late request creates. The init container downloads and
verifies the model with the credentials of the namespace. The server has no credentials, and its pod
is ready once it has completed a prompt.
"""

import hashlib
import json
from copy import deepcopy
from datetime import datetime
from typing import Any

from finetune_api import names
from finetune_api.model import Model
from finetune_api.serving import PORT_COMPLETIONS, Serve, serving_name
from finetune_api.tasks import FetchTask
from finetune_operator.build.credentials import SecretSource
from finetune_operator.build.network_policy import DNS
from finetune_operator.build.placement import placement
from finetune_operator.build.pod_metadata import pod_metadata
from finetune_operator.build.pods import CONTAINER_SECURITY, pod_spec
from finetune_operator.pod_fields import CACHE_PATH, SHM
from finetune_operator.runtimes import ServingRuntime
from finetune_operator.settings import PodNetwork, Settings

FILES = "finetune-model"  # the volume
FOLDER = f"{CACHE_PATH}/model"
ANNOTATION_TEMPLATE = f"{names.GROUP}/template"  # a digest of the pod template
API, OPERATIONS = "api", "operations"
PORT_OPERATIONS = 8081
PROBE_SECONDS = 10
GRACE_SECONDS = 60  # between the end of a pod and SIGKILL
DRAIN_SECONDS = 45  # of it for running completions; the rest is for the Service and the end
# One token of a real completion: a server that listens has not loaded its model yet. It bypasses
# the proxy of the environment.
PROBE = f"""\
import json, sys, urllib.error, urllib.request
body = json.dumps({{"model": sys.argv[1], "prompt": "a", "max_tokens": 1}}).encode()
headers = {{"Content-Type": "application/json"}}
url = "http://127.0.0.1:{PORT_COMPLETIONS}/v1/completions"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
try:
    opener.open(urllib.request.Request(url, body, headers), timeout=25).read()
except urllib.error.HTTPError as error:
    sys.exit(error.read(500).decode("utf-8", "replace"))
except OSError as error:
    sys.exit(str(error))
"""
# Caches of the libraries: the root file system is read-only, and the user has no home.
WRITABLE = {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache"}  # noqa: S108
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def serving_of(model: Model) -> str:
    """The name of the Model's Deployment, Service, and Lease."""
    return serving_name(model.metadata.name, model.metadata.uid)


def build_deployment(
    model: Model, serve: Serve, runtime: ServingRuntime, settings: Settings, replicas: int
) -> dict[str, Any]:
    """The Deployment. A pod is replaced before the next one: GPUs for one more may not be free."""
    template = _template(model, serve, runtime, settings)
    metadata = _metadata(model, _model_reference(model))
    metadata["annotations"][ANNOTATION_TEMPLATE] = template_digest(template)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": runtime.start_seconds + 600,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "selector": {"matchLabels": _selector(model)},
            "template": template,
        },
    }


def template_digest(template: dict[str, Any]) -> str:
    """A digest of what the server is. Another image of only the download restarts no server."""
    found = deepcopy(template)
    for container in found["spec"]["initContainers"]:
        del container["image"]
    text = json.dumps(found, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_service(model: Model, deployment_uid: str) -> dict[str, Any]:
    """The Service, under whose name the gateway and clients of the namespace find the pods."""
    port = {
        "name": "http",
        "port": PORT_COMPLETIONS,
        "targetPort": API,
        "appProtocol": "http",
        "protocol": "TCP",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(model, _deployment_reference(model, deployment_uid)),
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "PreferDualStack",
            "selector": _selector(model),
            "ports": [port],
        },
    }


def build_lease(model: Model, deployment_uid: str, now: datetime) -> dict[str, Any]:
    """The Lease, whose renewTime is the last use. It is new, and the model is thus awake."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": _metadata(model, _deployment_reference(model, deployment_uid)),
        "spec": {
            "holderIdentity": names.MANAGED_BY,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }


def build_policy(model: Model, network: PodNetwork) -> dict[str, Any]:
    """Who may reach the server: pods of the namespace, such as the gateway."""
    same_namespace: dict[str, Any] = {"podSelector": {}}
    ingress: list[dict[str, Any]] = [{"from": [same_namespace], "ports": [{"port": API}]}]
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": _selector(model)},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }
    if network.egress:
        spec["policyTypes"] = ["Ingress", "Egress"]
        spec["egress"] = [{"ports": DNS}, *network.egress]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(model, _model_reference(model)),
        "spec": spec,
    }


def _selector(model: Model) -> dict[str, str]:
    return {
        names.LABEL_UID: model.metadata.uid,
        names.LABEL_COMPONENT: names.COMPONENT_SERVING,
    }


def _labels(model: Model) -> dict[str, str]:
    return {names.LABEL_MANAGED_BY: names.MANAGED_BY, **_selector(model)}


def _metadata(model: Model, owner: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": serving_of(model),
        "namespace": model.metadata.namespace,
        "labels": _labels(model),
        "annotations": {names.ANNOTATION_MODEL: model.metadata.name},
        "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": False}],
    }


def _model_reference(model: Model) -> dict[str, Any]:
    meta = model.metadata
    return {"apiVersion": names.API_VERSION, "kind": "Model", "name": meta.name, "uid": meta.uid}


def _deployment_reference(model: Model, uid: str) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": serving_of(model), "uid": uid}


def _template(
    model: Model, serve: Serve, runtime: ServingRuntime, settings: Settings
) -> dict[str, Any]:
    annotations = {names.ANNOTATION_MODEL: model.metadata.name}
    return {
        "metadata": pod_metadata(settings, _labels(model), annotations, runtime=runtime),
        "spec": {**_pod(model, serve, runtime, settings), **placement(runtime, [])},
    }


def _pod(model: Model, serve: Serve, runtime: ServingRuntime, settings: Settings) -> dict[str, Any]:
    secret = model.spec.secret_name or settings.secret_name
    volumes = [{"name": FILES, "emptyDir": {}}]
    if runtime.engine == "vllm":
        volumes.append({"name": SHM, "emptyDir": {"medium": "Memory"}})
    spec = {
        **pod_spec(
            settings,
            SecretSource(secret, is_required=secret != settings.secret_name),
            _server(model, serve, runtime),
            [*volumes, *(volume.to_dict() for volume in runtime.volumes)],
            before=[_fetch(model, settings)],
            room=None,  # compiled kernels and other caches of the server
            main_reads_secret=False,
        ),
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    }
    if runtime.node_selector:
        spec["nodeSelector"] = dict(runtime.node_selector)
    if runtime.tolerations:
        spec["tolerations"] = [toleration.to_dict() for toleration in runtime.tolerations]
    if runtime.priority_class_name:
        spec["priorityClassName"] = runtime.priority_class_name
    if runtime.resource_claims:
        spec["resourceClaims"] = [claim.of_pod() for claim in runtime.resource_claims]
    return spec


def _fetch(model: Model, settings: Settings) -> dict[str, Any]:
    assert settings.serving is not None
    task = FetchTask(
        model=model.spec.id,
        uri=model.spec.uri,
        manifest_sha256=model.spec.manifest_sha256,
        folder=FOLDER,
    )
    amounts = {name: str(amount) for name, amount in settings.serving.fetch_resources.items()}
    return {
        "name": names.CONTAINER_FETCH,
        "image": settings.serving.fetch_image,
        "command": ["python", "-m", "finetune_serving.fetch"],
        "env": [{"name": names.ENV_TASK, "value": task.to_json()}],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "volumeMounts": [{"name": FILES, "mountPath": CACHE_PATH}],
    }


def _server(model: Model, serve: Serve, runtime: ServingRuntime) -> dict[str, Any]:
    is_vllm = runtime.engine == "vllm"
    variables = WRITABLE | (OFFLINE if is_vllm else {}) | runtime.env
    ports = {API: PORT_COMPLETIONS} | ({} if is_vllm else {OPERATIONS: PORT_OPERATIONS})
    shm = [{"name": SHM, "mountPath": "/dev/shm"}] if is_vllm else []  # noqa: S108
    container = {
        "image": runtime.image,
        "command": _command(model, runtime),
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": _resources(serve, runtime),
        "startupProbe": {
            "exec": {"command": ["python3", "-c", PROBE, model.spec.id]},
            "periodSeconds": PROBE_SECONDS,
            "timeoutSeconds": 30,
            "failureThreshold": max(1, runtime.start_seconds // PROBE_SECONDS),
        },
        "readinessProbe": {
            "httpGet": _health(runtime, "/readyz"),
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": _health(runtime, "/healthz"),
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        # The Service sends requests to the pod for a moment after its end has begun.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "volumeMounts": [
            {"name": FILES, "mountPath": CACHE_PATH, "readOnly": True},
            *shm,
            *(mount.to_dict() for mount in runtime.volume_mounts),
        ],
    }
    if runtime.security_context:
        container["securityContext"] = CONTAINER_SECURITY | runtime.security_context
    return container


def _health(runtime: ServingRuntime, path: str) -> dict[str, Any]:
    if runtime.engine == "vllm":
        return {"path": "/health", "port": API}
    return {"path": path, "port": OPERATIONS}


def _command(model: Model, runtime: ServingRuntime) -> list[str]:
    """The command line. Kubernetes replaces $(NAME) in it, and an id may be anything."""
    if runtime.engine == "vllm":
        command = ["vllm", "serve", FOLDER, f"--served-model-name={_literal(model.spec.id)}"]
        # Without this flag, of version 0.18 and later, vLLM drops running completions at SIGTERM,
        # and their clients wait in vain.
        drain = f"--shutdown-timeout={DRAIN_SECONDS}"
        return [*command, f"--port={PORT_COMPLETIONS}", drain, *runtime.args]
    program = ["python", "-m", "finetune_serving", "serve", "--host=*"]
    model_flag = f"--model={_literal(model.spec.id)}={FOLDER}"
    return [*program, model_flag, "--keep=1", "--cache=/tmp/models", *runtime.args]


def _literal(text: str) -> str:
    return text.replace("$", "$$")


def _resources(serve: Serve, runtime: ServingRuntime) -> dict[str, Any]:
    """Requests and limits: those of the Model, and otherwise those of the runtime."""
    amounts = {name: str(amount) for name, amount in runtime.resources.items()}
    wanted = serve.resources
    if wanted is not None:
        given = {"cpu": wanted.cpu, "memory": wanted.memory}
        amounts |= {name: amount for name, amount in given.items() if amount is not None}
        if wanted.gpus is not None:
            amounts.pop(runtime.gpu_resource, None)
            amounts |= {runtime.gpu_resource: str(wanted.gpus)} if wanted.gpus else {}
    found: dict[str, Any] = {"requests": amounts, "limits": dict(amounts)} if amounts else {}
    if runtime.resource_claims:
        found["claims"] = [claim.of_container() for claim in runtime.resource_claims]
    return found
