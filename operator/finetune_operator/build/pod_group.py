"""The group of an attempt for Kubernetes' own scheduler, which places all of its pods or none.

`scheduling.k8s.io` serves PodGroups if the cluster enables the feature GenericWorkload. A pod names
its group in `spec.schedulingGroup`, which other clusters drop, and waits until the group exists.
"""

from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_operator.build.identity import attempt_name, child_metadata
from finetune_operator.runtimes import Runtime

GROUP = "scheduling.k8s.io"
# Versions with the fields that are used here: v1alpha2 is in Kubernetes 1.36, the others in 1.37.
VERSIONS = ("v1beta1", "v1alpha3", "v1alpha2")
DEFAULT_SCHEDULER = "default-scheduler"


def needs_group(finetune: FineTune, runtime: Runtime | None) -> bool:
    """Whether the default scheduler places several pods, and no queue decides about them."""
    scheduler = runtime.scheduler_name if runtime else None
    is_default = scheduler in (None, DEFAULT_SCHEDULER)
    return is_default and finetune.spec.queue_name is None and finetune.spec.resources.nodes > 1


def group_reference(name: str) -> dict[str, Any]:
    """The field of a pod's spec. name: of the attempt, and of its group."""
    return {"schedulingGroup": {"podGroupName": name}}


def build_pod_group(
    finetune: FineTune, attempt: int, owner: dict[str, Any], version: str
) -> dict[str, Any]:
    """owner: the reference to the Job, with which the group goes."""
    name = attempt_name(finetune, attempt)
    metadata = child_metadata(finetune, name, names.COMPONENT_TRAIN, attempt)
    metadata["ownerReferences"] = [owner]
    gang = {"minCount": finetune.spec.resources.nodes}
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "PodGroup",
        "metadata": metadata,
        "spec": {"schedulingPolicy": {"gang": gang}},
    }
