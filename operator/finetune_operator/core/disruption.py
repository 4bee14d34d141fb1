"""Pods that the cluster ended: preempted, evicted, rejected, or lost with their node."""

import re

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.core.observed import Pod
from finetune_operator.messages import Disruption

# By the reason of the pod condition DisruptionTarget.
CONDITIONS = {
    "PreemptionByScheduler": Disruption.PREEMPTED,
    "DeletionByTaintManager": Disruption.NODE_TAINTED,
    "DeletionByPodGC": Disruption.NODE_LOST,
    "EvictionByEvictionAPI": Disruption.EVICTED,
    "TerminationByKubelet": Disruption.TERMINATED_BY_NODE,
}
# By the kubelet's own `status.reason`, which says more than TerminationByKubelet.
KUBELET_REASONS = {
    "Evicted": Disruption.EVICTED_BY_NODE,
    "Preempting": Disruption.MADE_ROOM,
    "NodeShutdown": Disruption.NODE_SHUT_DOWN,
    "Terminated": Disruption.NODE_SHUT_DOWN,
    "NodeLost": Disruption.NODE_LOST,
}

# The kubelet's message if the node was low on memory, and the pod used more than it had requested.
OVER_REQUEST = re.compile(r"low on resource: memory\b.* was using ", re.DOTALL)


def describe_disruption(pod: Pod) -> ErrorInfo | None:
    """Why the cluster ended or rejected the pod; None if the pod ended by itself."""
    known = KUBELET_REASONS.get(pod.pod_reason or "")
    if pod.is_disrupted:
        disruption = known or CONDITIONS.get(pod.disruption or "", Disruption.REMOVED)
        return _describe(pod, disruption, pod.pod_message or pod.disruption_message)
    if pod.exit_code is None and known is not None:
        return _describe(pod, known, pod.pod_message)
    if pod.exit_code is None and pod.phase == "Failed":
        details = ": ".join(filter(None, (pod.pod_reason, pod.pod_message)))
        return _describe(pod, Disruption.REJECTED, details)
    return None


def is_own_fault(pod: Pod) -> bool:
    """Whether the pod exceeded its own limits or was rejected, which counts as a failure.

    The kubelet evicts a pod that fills its own volumes without the condition DisruptionTarget.
    """
    known = KUBELET_REASONS.get(pod.pod_reason or "")
    was_lost = known is not None and known.value[0] == Reason.NODE_LOST
    return not pod.is_disrupted and not was_lost


def exceeded_memory_request(pod: Pod) -> bool:
    """Whether its node was low on memory and evicted the pod, which used more than its request."""
    is_evicted = pod.pod_reason == "Evicted"
    return is_evicted and OVER_REQUEST.search(pod.pod_message or "") is not None


def _describe(pod: Pod, disruption: Disruption, details: str | None) -> ErrorInfo:
    error = messages.pod_disrupted(disruption, pod.name, pod.node, details)
    return error.replace(rank=pod.index, node=pod.node, exit_code=pod.exit_code)
