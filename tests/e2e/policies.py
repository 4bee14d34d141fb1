"""Policies that change pods, as admission webhooks of other products do."""

from finetune_api.wire import JsonObject

ADMISSION = "admissionregistration.k8s.io/v1"
VOLUME, SECRET = "agent-tokens", "agent-tokens"
# A volume that no container mounts is not mounted by the kubelet.
ADDS_A_VOLUME = f"""
Object{{spec: Object.spec{{
  volumes: [Object.spec.volumes{{
    name: "{VOLUME}", secret: Object.spec.volumes.secret{{secretName: "{SECRET}"}}
  }}],
  containers: [Object.spec.containers{{
    name: "main",
    volumeMounts: [Object.spec.containers.volumeMounts{{
      name: "{VOLUME}", mountPath: "/var/run/agent", readOnly: true
    }}]
  }}]
}}}}
"""


def missing_volume(namespace: str) -> tuple[JsonObject, JsonObject]:
    """A policy and its binding: each pod of the namespace mounts a Secret that does not exist."""
    name = f"agent-{namespace}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    patch = {
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": ADDS_A_VOLUME},
    }
    policy = {
        "apiVersion": ADMISSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [{**rule, "resources": ["pods"]}]},
            "mutations": [patch],
        },
    }
    binding = {
        "apiVersion": ADMISSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "matchResources": {"namespaceSelector": selector}},
    }
    return policy, binding
