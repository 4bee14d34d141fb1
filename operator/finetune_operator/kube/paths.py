"""The API path of each kind."""

from finetune_api import names


def finetunes(namespace: str) -> str:
    """FineTunes of a namespace, or of the whole cluster if it is empty."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{names.API_VERSION}{where}/finetunes"


def models(namespace: str) -> str:
    """Models of a namespace, or of the whole cluster if it is empty."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{names.API_VERSION}{where}/models"


def jobs(namespace: str) -> str:
    """Jobs of a namespace, or of the whole cluster if it is empty."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/batch/v1{where}/jobs"


def core(namespace: str, plural: str) -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}"


def workloads(namespace: str, version: str) -> str:
    """Kueue's Workloads."""
    return f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/workloads"


def pending_workloads(namespace: str, queue: str, version: str) -> str:
    """Kueue's ordered list of the Workloads that wait in a local queue."""
    group = f"/apis/visibility.kueue.x-k8s.io/{version}"
    return f"{group}/namespaces/{namespace}/localqueues/{queue}/pendingworkloads"


def describe(method: str, path: str) -> tuple[str, str]:
    """The verb and the plural of a request."""
    parts = path.strip("/").split("/")
    after = parts[2:] if parts[0] == "api" else parts[3:]  # /api/v1/..., /apis/group/version/...
    if len(after) > 2 and after[0] == "namespaces":
        after = after[2:]
    verbs = {"POST": "create", "PATCH": "change", "DELETE": "delete"}
    read = "get" if len(after) > 1 else "list"
    return verbs.get(method, read), after[0] if after else path


def of_kind(kind: str, namespace: str, version: str = "") -> str:
    """The collection in which an object of this kind is created. version: its apiVersion."""
    if kind == "PodGroup":
        return f"/apis/{version}/namespaces/{namespace}/podgroups"
    if kind == "Job":
        return jobs(namespace)
    if kind == "Model":
        return models(namespace)
    if kind == "Deployment":
        return f"/apis/apps/v1/namespaces/{namespace}/deployments"
    if kind == "Lease":
        return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    if kind == "NetworkPolicy":
        return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    return core(namespace, {"Service": "services", "Event": "events"}[kind])
