"""Where pods on accelerators run: the runtime's placement, and nodes that an attempt avoids."""

from collections.abc import Sequence
from typing import Any

from finetune_operator.runtimes import PodRuntime

PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def placement(runtime: PodRuntime | None, avoided: Sequence[str]) -> dict[str, Any]:
    """The fields of the pod spec. avoided: nodes to which the scheduler prefers all others."""
    found: dict[str, Any] = {}
    affinity = runtime.affinity.to_dict() if runtime and runtime.affinity else {}
    if avoided:
        affinity = _avoiding(affinity, avoided)
    if affinity:
        found["affinity"] = affinity
    if runtime is None:
        return found
    if runtime.topology_spread_constraints:
        found["topologySpreadConstraints"] = [
            constraint.to_dict() for constraint in runtime.topology_spread_constraints
        ]
    if runtime.scheduler_name:
        found["schedulerName"] = runtime.scheduler_name
    if runtime.runtime_class_name:
        found["runtimeClassName"] = runtime.runtime_class_name
    return found


def _avoiding(affinity: dict[str, Any], avoided: Sequence[str]) -> dict[str, Any]:
    """The affinity and a preference of other nodes.

    Kubernetes accepts one name in a requirement; all requirements of a term must be met.
    """
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in avoided]
    term = {"weight": 100, "preference": {"matchFields": fields}}
    nodes = affinity.get("nodeAffinity", {})
    return {**affinity, "nodeAffinity": {**nodes, PREFERRED: [*nodes.get(PREFERRED, []), term]}}
