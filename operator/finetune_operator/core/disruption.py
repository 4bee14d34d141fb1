"""Pods that ended through no word of their own: preempted, evicted, refused, or their node lost."""

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_operator.core.observed import Pod

# The reasons of the pod condition DisruptionTarget: (ours, what happened to the pod).
CONDITIONS = {
    "PreemptionByScheduler": (Reason.PREEMPTED, "gave way to pods of a higher priority"),
    "DeletionByTaintManager": (Reason.NODE_LOST, "lost its node, which was tainted NoExecute"),
    "DeletionByPodGC": (Reason.NODE_LOST, "lost its node"),
    "EvictionByEvictionAPI": (Reason.EVICTED, "was evicted"),
    "TerminationByKubelet": (Reason.EVICTED, "was ended by its node"),
}
# The kubelet's own `status.reason`, which says more than TerminationByKubelet.
KUBELET_REASONS = {
    "Evicted": (Reason.EVICTED, "was evicted by its node"),
    "Preempting": (Reason.PREEMPTED, "gave way to a critical pod"),
    "NodeShutdown": (Reason.NODE_LOST, "lost its node, which shuts down"),
    "Terminated": (Reason.NODE_LOST, "lost its node, which shuts down"),
    "NodeLost": (Reason.NODE_LOST, "lost its node"),
}
HINTS = {
    Reason.PREEMPTED: "set priorityClassName, or wait for the others to end",
    Reason.NODE_LOST: "look at the node: kubectl describe node",
    Reason.EVICTED: "look at the node's pressure and drains, and at the limits in resources",
    Reason.POD_LOST: "look at the node's events: kubectl get events",
}


def describe_disruption(pod: Pod) -> ErrorInfo | None:
    """Why the pod was taken away or refused; None for one that ended by itself."""
    known = KUBELET_REASONS.get(pod.pod_reason or "")
    if pod.is_disrupted:
        found = known or CONDITIONS.get(pod.disruption or "")
        code, words = found or (Reason.POD_LOST, "was taken away")
        return _told(pod, code, words, pod.pod_message or pod.disruption_message)
    if pod.exit_code is None and known is not None:
        return _told(pod, *known, pod.pod_message)
    if pod.exit_code is None and pod.phase == "Failed":
        words = f"was refused by its node ({pod.pod_reason or 'no reason given'})"
        return _told(pod, Reason.POD_LOST, words, pod.pod_message)
    return None


def is_own_fault(pod: Pod) -> bool:
    """Over its own limit, or refused again and again: no disruption, so it counts.

    The kubelet evicts a pod that fills its own volumes without the condition DisruptionTarget.
    """
    lost = KUBELET_REASONS.get(pod.pod_reason or "", ("", ""))[0] == Reason.NODE_LOST
    return not pod.is_disrupted and not lost


def _told(pod: Pod, code: str, words: str, details: str | None) -> ErrorInfo:
    where = f" on node {pod.node}" if pod.node else ""
    told = f": {details}" if details else ""
    return ErrorInfo(
        code=code,
        message=f"pod {pod.name}{where} {words}{told}"[:2048],
        rank=pod.index,
        node=pod.node,
        exit_code=pod.exit_code,
        hint=HINTS[code],
    )
