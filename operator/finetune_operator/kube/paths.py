"""Where each kind is in the API."""

from finetune_api import names


def finetunes(namespace: str) -> str:
    """All of a namespace; of the cluster where it is empty."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{names.API_VERSION}{where}/finetunes"


def models(namespace: str) -> str:
    """All of a namespace; of the cluster where it is empty."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{names.API_VERSION}{where}/models"


def jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def core(namespace: str, plural: str) -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}"


def workloads(namespace: str, version: str) -> str:
    """Kueue's."""
    return f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/workloads"


def pending_workloads(namespace: str, queue: str, version: str) -> str:
    """Kueue's list of who waits in a local queue, in order."""
    group = f"/apis/visibility.kueue.x-k8s.io/{version}"
    return f"{group}/namespaces/{namespace}/localqueues/{queue}/pendingworkloads"


def of_kind(kind: str, namespace: str) -> str:
    """The collection that a manifest of this kind is posted to."""
    if kind == "Job":
        return jobs(namespace)
    if kind == "Model":
        return models(namespace)
    if kind == "NetworkPolicy":
        return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    return core(namespace, {"Service": "services", "Event": "events"}[kind])
