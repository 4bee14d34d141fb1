"""Policies about user IDs, as OpenShift's security context constraint `restricted-v2` has them."""

from finetune_api.wire import JsonObject

ADMISSION = "admissionregistration.k8s.io/v1"
IDS = ("runAsUser", "runAsGroup", "fsGroup")

_POD = "has(object.spec.template) ? object.spec.template.spec : object.spec"
_NO_IDS_OF_POD = " && ".join(
    f"(!has(variables.pod.securityContext) || !has(variables.pod.securityContext.{name}))"
    for name in IDS
)
_NO_IDS_OF_CONTAINERS = " && ".join(
    f"(!has(variables.pod.{kind}) || variables.pod.{kind}.all(c, !has(c.securityContext) || "
    "(!has(c.securityContext.runAsUser) && !has(c.securityContext.runAsGroup))))"
    for kind in ("containers", "initContainers")
)
MESSAGE = "unable to validate against any security context constraint: IDs are assigned"


def refuse_fixed_ids(namespace: str, *resources: str) -> tuple[JsonObject, JsonObject]:
    """A policy and its binding: objects whose pods choose their own IDs are refused.

    resources: among pods, jobs, and deployments.
    """
    groups = {"pods": "", "jobs": "batch", "deployments": "apps"}
    rules = [_rule(groups[resource], resource) for resource in resources]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "variables": [{"name": "pod", "expression": _POD}],
        "validations": [
            {"expression": f"{_NO_IDS_OF_POD} && {_NO_IDS_OF_CONTAINERS}", "message": MESSAGE}
        ],
    }
    return _policy("Validating", f"fixed-ids-{namespace}", namespace, spec, ["Deny"])


def assign_ids(namespace: str, number: int) -> tuple[JsonObject, JsonObject]:
    """A policy and its binding: each new pod gets this user ID and the group 0.

    OpenShift does the same with the first number of the namespace's range.
    """
    patch = f"""
Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{
  runAsUser: {number}, runAsGroup: 0, fsGroup: {number}
}}}}}}
"""
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [_rule("", "pods")]},
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": patch}}
        ],
    }
    return _policy("Mutating", f"assigned-ids-{namespace}", namespace, spec, None)


def _rule(group: str, resource: str) -> JsonObject:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": [resource],
    }


def _policy(
    kind: str, name: str, namespace: str, spec: JsonObject, actions: list[str] | None
) -> tuple[JsonObject, JsonObject]:
    namespaces = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return (
        {
            "apiVersion": ADMISSION,
            "kind": f"{kind}AdmissionPolicy",
            "metadata": {"name": name},
            "spec": spec,
        },
        {
            "apiVersion": ADMISSION,
            "kind": f"{kind}AdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "matchResources": {"namespaceSelector": namespaces},
                **({"validationActions": actions} if actions else {}),
            },
        },
    )
